/** Runs tests of Debian's tempest against a service and reads their results. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from '../peers/command.ts'
import { cast, IdentityClient } from '../peers/identity-client.ts'
import { iniText } from '../peers/ini.ts'
import type { ImageService } from './image-service.ts'

export interface TempestAccount {
  readonly username: string
  readonly password: string
  readonly project_name: string
  readonly domain_name: string
  readonly roles: readonly string[]
  readonly types?: readonly 'admin'[]
}
/** Accounts for two processes of tempest, each in need of up to two members and an administrator at once, made in the service. */
export async function tempestAccounts(service: ImageService): Promise<readonly TempestAccount[]> {
  const accounts = [
    ...['one', 'two', 'three', 'four', 'five', 'six'].map((name) => account(`tempest-${name}`, 'member')),
    ...['one', 'two'].map((name) => account(`tempest-admin-${name}`, 'admin')),
  ]
  const identity = new IdentityClient(service.identityUrl, service.cast.admin.token)
  for (const { username, password, project_name: project, roles } of accounts) {
    await identity.ensureAccount({ user: username, password, project, roles })
  }
  return accounts
}

const account = (name: string, role: 'member' | 'admin'): TempestAccount => ({
  username: name,
  password: `${name}-password`,
  project_name: name,
  domain_name: 'Default',
  roles: [role],
  ...(role === 'admin' ? { types: ['admin'] } : {}),
})

export interface TempestOptions {
  readonly folder: string
  readonly service: ImageService
  /** A URL that the service may import from. */
  readonly importUrl: string
  /** Accounts that exist; absent: tempest makes and deletes its own, as the administrator. */
  readonly accounts?: readonly TempestAccount[]
  /** What servers are made of; absent: no test makes any. */
  readonly compute?: {
    readonly imageId: string
    readonly otherImageId: string
    readonly flavorId: string
    readonly otherFlavorId: string
    /** `2.79`: the last version that is tried. */
    readonly maxVersion: string
  }
  /** Regular expression of test names. */
  readonly select: string
}
export interface TempestResult {
  readonly name: string
  readonly outcome: 'ok' | 'skipped' | 'failed'
  /** Of a skip as tempest words it; of a failure its traceback. */
  readonly reason: string
}

const TEST_TIMEOUT_S = 300
const RUN_TIMEOUT_MS = 20 * 60_000

export async function runTempest(options: TempestOptions): Promise<readonly TempestResult[]> {
  const { folder, select } = options
  const workspace = join(folder, 'workspace')
  for (const path of [workspace, join(folder, 'lock')]) await mkdir(path, { recursive: true })
  const accountsFile = join(folder, 'accounts.yaml')
  await writeFile(accountsFile, JSON.stringify(options.accounts ?? [])) // JSON is YAML
  await writeFile(join(folder, 'tempest.conf'), iniText(settings(options, accountsFile)))
  const discovery = {
    test_path: '/usr/lib/python3/dist-packages/tempest/test_discover',
    top_dir: '/usr/lib/python3/dist-packages',
  }
  // tests of one class run in one process: they share what the class made
  await writeFile(join(workspace, '.stestr.conf'), iniText({ DEFAULT: { ...discovery, group_regex: '([^\\.]*\\.)*' } }))
  const openstack = Object.keys(process.env).filter((name) => name.startsWith('OS_'))
  const { stdout, stderr } = await command(['/usr/bin/python3', '-m', 'stestr', 'run', '--concurrency', '2', select], {
    cwd: workspace,
    env: {
      ...Object.fromEntries(openstack.map((name) => [name, undefined])),
      TEMPEST_CONFIG_DIR: folder,
      TEMPEST_CONFIG: 'tempest.conf',
      OS_TEST_TIMEOUT: String(TEST_TIMEOUT_S),
      OS_STDOUT_CAPTURE: '1',
      OS_STDERR_CAPTURE: '1',
      PYTHONWARNINGS: 'ignore',
      no_proxy: '127.0.0.1',
    },
    timeoutMs: RUN_TIMEOUT_MS,
  })
  const results = readResults(stdout)
  if (results.length === 0) throw new Error(`tempest ran no test:\n${(stdout + stderr).slice(-3000)}`)
  return results
}

const settings = ({ folder, service, importUrl, accounts, compute }: TempestOptions, accountsFile: string) => ({
  DEFAULT: { log_dir: folder, log_file: 'tempest.log', debug: true },
  oslo_concurrency: { lock_path: join(folder, 'lock') },
  service_available: { glance: true, nova: compute !== undefined, cinder: false, neutron: false, swift: false },
  auth: accounts
    ? { use_dynamic_credentials: false, test_accounts_file: accountsFile }
    : {
        use_dynamic_credentials: true,
        create_isolated_networks: false,
        admin_username: cast.admin.user,
        admin_password: cast.admin.password,
        admin_project_name: cast.admin.project,
        admin_domain_name: 'Default',
        admin_system: 'all',
      },
  identity: {
    auth_version: 'v3',
    uri_v3: service.identityUrl,
    region: 'RegionOne',
    default_domain_id: 'default',
    v3_endpoint_type: 'public',
    admin_role: 'admin',
  },
  'identity-feature-enabled': { api_v2: false, api_v2_admin: false, api_v3: true, system_scope: !accounts },
  image: {
    region: 'RegionOne',
    catalog_type: 'image',
    endpoint_type: 'public',
    http_image: importUrl,
    build_timeout: 60,
    build_interval: 1,
    image_caching_enabled: false,
  },
  'image-feature-enabled': {
    api_v2: true,
    api_v1: false,
    import_image: true,
    os_glance_reserved: true,
    manage_locations: false,
  },
  ...(compute ? computeSettings(compute) : {}),
  enforce_scope: { glance: !accounts },
  validation: { run_validation: false },
})

const computeSettings = (compute: NonNullable<TempestOptions['compute']>) => ({
  compute: {
    image_ref: compute.imageId,
    image_ref_alt: compute.otherImageId,
    flavor_ref: compute.flavorId,
    flavor_ref_alt: compute.otherFlavorId,
    min_microversion: '2.1',
    max_microversion: compute.maxVersion,
    build_timeout: 120,
    build_interval: 1,
    region: 'RegionOne',
    endpoint_type: 'public',
  },
  'compute-feature-enabled': {
    enable_instance_password: false,
    resize: false,
    shelve: false,
    suspend: false,
    rescue: false,
    cold_migration: false,
    live_migration: false,
    metadata_service: false,
    interface_attach: false,
    snapshot: false,
    attach_encrypted_volume: false,
    ide_bus: false,
    xenapi_apis: true, // for its tests of metadata, which it takes for a matter of Xen
  },
})

/** `{0} name [0.5s] ... ok`, `… SKIPPED: reason`, or `… FAILED` with a traceback in the lines that follow. */
function readResults(text: string): TempestResult[] {
  const results: TempestResult[] = []
  const blocks = text.split(/^(?=\{\d+\} )/m).slice(1)
  for (const block of blocks) {
    const found = /^\{\d+\} (.+?) (?:\[[\d.]+s\] )?\.\.\. (ok|SKIPPED|FAILED)(?:: (.*))?/.exec(block)
    if (!found) continue
    const [, name = '', outcome, reason = ''] = found
    if (outcome === 'ok') results.push({ name, outcome: 'ok', reason: '' })
    else if (outcome === 'SKIPPED') results.push({ name, outcome: 'skipped', reason })
    else results.push({ name, outcome: 'failed', reason: tracebackOf(block) })
  }
  return results
}

/** The traceback and the last answer before it, without the log of every request. */
function tracebackOf(block: string): string {
  const [before = '', log = ''] = block.split('Captured pythonlogging:')
  const answers = log.split('\n').filter((line) => /Request \(|Body: |Response - Headers/.test(line))
  return `${before.slice(-3000)}\n${answers.slice(-4).join('\n').slice(0, 2000)}`
}
