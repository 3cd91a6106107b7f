import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { must } from '../../test/peers/command.ts'

export interface Load {
  readonly url: string
  readonly token: string
  readonly connections: number
  readonly seconds: number
  /** Sent by POST where given. */
  readonly json?: unknown
}
export interface LoadResult {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

const METHOD = 'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'

/** Requests over and over, by wrk. @throws where one was answered by other than 2xx or 3xx */
export async function load(folder: string, { url, token, connections, seconds, json }: Load): Promise<LoadResult> {
  const script = join(folder, 'request.lua')
  const report = [
    'done = function(summary, latency)',
    '  io.write(string.format("RESULT %d %d %f %f %f\\n", summary.requests, summary.errors.status, summary.duration / 1e6,',
    '    latency:percentile(50) / 1000, latency:percentile(99) / 1000))',
    'end',
  ].join('\n')
  const body = json === undefined ? '' : `${METHOD}wrk.body = [==[${JSON.stringify(json)}]==]\n`
  await writeFile(script, `wrk.headers["X-Auth-Token"] = "${token}"\n${body}${report}\n`)
  const threads = Math.min(2, connections)
  const options = [`-t${threads}`, `-c${connections}`, `-d${seconds}s`, '--timeout', '60s', '-s', script]
  const output = await must(['wrk', ...options, url])
  const [, requests, refused, duration, p50Ms, p99Ms] = (/^RESULT (.*)$/m.exec(output)?.[0] ?? '').split(' ').map(Number)
  if (!requests || refused) throw new Error(`${refused ?? 'all'} of ${requests ?? 0} requests were refused: ${url}\n${output}`)
  return { perSecond: requests / duration!, p50Ms: p50Ms!, p99Ms: p99Ms! }
}
