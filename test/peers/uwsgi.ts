import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { answers, type Daemon, startDaemon } from './daemon.ts'

export interface UwsgiOptions {
  readonly name: string
  readonly folder: string
  readonly port: number
  readonly workers: number
  readonly threads: number
  readonly application: string
  readonly env: Readonly<Record<string, string>>
  readonly settings?: Readonly<Record<string, string>>
}

/** A Python web application the way Debian's packages run theirs: uWSGI with processes and threads, speaking HTTP itself. */
export async function startUwsgi(options: UwsgiOptions): Promise<Daemon> {
  const { name, folder, port } = options
  const settings = {
    plugins: 'python3',
    'wsgi-file': options.application,
    'http-socket': `127.0.0.1:${port}`,
    processes: String(options.workers),
    threads: String(options.threads),
    'enable-threads': 'true',
    'lazy-apps': 'true',
    'thunder-lock': 'true',
    master: 'true',
    'need-app': 'true',
    'die-on-term': 'true',
    'no-orphans': 'true',
    'buffer-size': '65535',
    listen: '512',
    'rem-header': 'Content-Length',
    'add-header': 'Connection: close',
    'disable-logging': 'true',
    ...options.settings,
  }
  const lines = [
    ...Object.entries(settings).map(([key, value]) => `${key} = ${value}`),
    ...Object.entries(options.env).map(([key, value]) => `env = ${key}=${value}`),
  ]
  const file = join(folder, `${name}.ini`)
  await writeFile(file, `[uwsgi]\n${lines.join('\n')}\n`)
  return startDaemon({
    name,
    folder,
    command: ['uwsgi', '--ini', file],
    ready: answers(`http://127.0.0.1:${port}/`),
    readyWithinMs: 240_000,
  })
}
