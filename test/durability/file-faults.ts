/** Faults of a disk beneath a process that runs, put there by the kernel: SQLite's own calls fail, no function of ours is replaced. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { missingTool, must } from '../peers/command.ts'

export interface CallFault {
  /** Only calls on these. */
  readonly files: readonly string[]
  readonly call: 'pwrite64' | 'fdatasync' | 'fsync' | 'ftruncate'
  readonly error: 'EIO' | 'ENOSPC'
  /** The n-th such call of each thread fails, counted from 1 … */
  readonly nth: number
  /** … and all that come after it. */
  readonly andAllAfter: boolean
}

/** Why no process can be traced here, as the reason of a skip; `false` where one can. */
export function untraceable(): string | false {
  const reason = process.getuid?.() === 0 ? missingTool('strace') : 'tracing a process takes root'
  if (reason) return reason
  const { status, stderr } = spawnSync('sh', ['-c', 'sleep 0.1 & exec strace -o /dev/null -p $!'], { timeout: 10_000 })
  return status === 0 ? false : `strace may not trace a process here: ${String(stderr).trim().split('\n').at(-1)}`
}

let traces = 0

/** Such calls while it was on. */
export interface CallCount {
  /** By the thread that made most of them. */
  readonly made: number
  readonly failed: number
}

/** Runs `work` while strace makes calls of process `pid` fail (strace(1), "Tampering"); the kernel never sees them. */
export async function whileCallsFail(pid: number, fault: CallFault, work: () => Promise<void>): Promise<CallCount> {
  traces += 1
  const log = join(tmpdir(), `imprint-trace-${process.pid}-${traces}`)
  const { files, call, error, nth, andAllAfter } = fault
  const inject = `inject=${call}:error=${error}:when=${nth}${andAllAfter ? '+' : ''}`
  const paths = files.flatMap((file) => ['-P', file])
  const strace = spawn('strace', ['-f', '-o', log, ...paths, '-e', `trace=${call}`, '-e', inject, '-p', String(pid)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  try {
    let said = ''
    for await (const text of strace.stderr.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
      said += text
      if (said.includes(`Process ${pid} attached`)) break
    }
    if (!said.includes('attached')) throw new Error(`strace did not begin: ${said}`)
    strace.stderr.resume()
    await work()
  } finally {
    strace.kill('SIGINT') // it lets go of the process, which runs on
    if (strace.exitCode === null && strace.signalCode === null) await once(strace, 'exit')
  }
  const lines = (await readFile(log, 'utf8')).split('\n')
  await rm(log)
  const byThread = new Map<string, number>()
  for (const line of lines) {
    const [, thread] = /^(\d+) +\w+\(/.exec(line) ?? []
    if (thread) byThread.set(thread, (byThread.get(thread) ?? 0) + 1)
  }
  return { made: Math.max(0, ...byThread.values()), failed: lines.filter((line) => line.includes('(INJECTED)')).length }
}

/** Runs `work` while no file of the process grows beyond `bytes`: writes are cut short there, and fail with EFBIG. */
export async function whileFilesEndAt(pid: number, bytes: number, work: () => Promise<void>): Promise<void> {
  await must(['prlimit', '--pid', String(pid), `--fsize=${bytes}:`])
  try {
    await work()
  } finally {
    await must(['prlimit', '--pid', String(pid), '--fsize=unlimited:'])
  }
}
