import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { must } from './command.ts'
import { freePort, type Peer } from './daemon.ts'
import { iniText } from './ini.ts'
import type { KeystonePeer } from './keystone.ts'
import { startUwsgi } from './uwsgi.ts'

export interface GlancePeer extends Peer {
  /** Without `/v2`. */
  readonly url: string
  readonly pid: number
  /** Where its file store keeps images. */
  readonly imageFolder: string
}
export interface GlanceOptions {
  readonly folder: string
  readonly database: string
  readonly keystone: KeystonePeer
  readonly memcached: string
  /** Ports of loopback that web-download may fetch from. */
  readonly importPorts?: readonly number[]
  /** Unified limits from Keystone. */
  readonly quotas?: boolean
}

/** Debian's Glance on a free port: one file store (named like ours, so that answers compare), import methods on, no cache and no locations, as for measuring. */
export async function startGlance(options: GlanceOptions): Promise<GlancePeer> {
  const { folder, keystone } = options
  const path = (...parts: string[]) => join(folder, ...parts)
  for (const name of ['etc', 'images', 'staging', 'tasks', 'work', 'lock']) await mkdir(path(name), { recursive: true })
  for (const name of ['glance-api-paste.ini', 'schema-image.json']) await copyFile(join('/etc/glance', name), path('etc', name))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const endpointId = await keystone.registerImageService(url)
  const account = { auth_type: 'password', username: 'glance', password: 'glance', region_name: 'RegionOne' }
  const identityRoot = keystone.url.replace(/\/v3$/, '')
  await writeFile(
    path('etc', 'glance-api.conf'),
    iniText({
      DEFAULT: {
        log_file: path('service.log'),
        enabled_backends: 'imprint:file',
        enabled_import_methods: '[glance-direct,web-download,copy-image]',
        show_multiple_locations: false,
        show_image_direct_url: false,
        worker_self_reference_url: url,
        node_staging_uri: `file://${path('staging')}`,
        use_keystone_limits: options.quotas ?? false,
        enforce_secure_rbac: true,
        transport_url: 'fake://',
      },
      oslo_messaging_notifications: { driver: 'noop' },
      database: { connection: options.database },
      glance_store: { default_backend: 'imprint' },
      imprint: { filesystem_store_datadir: path('images') },
      // readers only read: what glance-tempest-plugin tests, and the default of later versions
      oslo_policy: { enforce_new_defaults: true, enforce_scope: true },
      os_glance_staging_store: { filesystem_store_datadir: path('staging') },
      os_glance_tasks_store: { filesystem_store_datadir: path('tasks') },
      task: { work_dir: path('work') },
      keystone_authtoken: {
        ...account,
        www_authenticate_uri: identityRoot,
        auth_url: identityRoot,
        project_domain_name: 'Default',
        user_domain_name: 'Default',
        project_name: 'service',
        service_token_roles_required: true,
        memcached_servers: options.memcached,
      },
      oslo_limit: { ...account, auth_url: identityRoot, user_domain_id: 'default', system_scope: 'all', endpoint_id: endpointId },
      paste_deploy: { flavor: 'keystone', config_file: path('etc', 'glance-api-paste.ini') },
      oslo_concurrency: { lock_path: path('lock') },
    }),
  )
  const ports = [80, 443, ...(options.importPorts ?? [])]
  await writeFile(
    path('etc', 'glance-image-import.conf'),
    iniText({
      image_import_opts: { image_import_plugins: '[]' },
      import_filtering_opts: { allowed_ports: `[${ports.join(',')}]`, allowed_hosts: '[127.0.0.1]' },
    }),
  )
  const manage = (...args: string[]) => must(['glance-manage', '--config-file', path('etc', 'glance-api.conf'), ...args])
  await manage('db_sync')
  await manage('db_load_metadefs', '/etc/glance/metadefs')
  const daemon = await startUwsgi({
    name: 'glance',
    folder,
    port,
    workers: 2,
    threads: 32,
    application: '/usr/bin/glance-wsgi-api',
    env: { OS_GLANCE_CONFIG_DIR: path('etc') },
    settings: {
      'http-auto-chunked': 'true',
      'http-chunked-input': 'true',
      'http-raw-body': 'true',
      'wsgi-manage-chunked-input': 'true',
      'socket-timeout': '10',
    },
  })
  return { name: 'glance', url, pid: daemon.pid, imageFolder: path('images'), stop: daemon.stop }
}
