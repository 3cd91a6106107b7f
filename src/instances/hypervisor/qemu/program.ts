import { spawn } from 'node:child_process'
import { access, constants } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import { ServiceError } from '../../../base/errors.ts'
import { objectOf } from './json-lines.ts'
import type { QmpCommands } from './qmp.ts'

/** A QEMU as it is installed here. */
export interface QemuProgram {
  readonly path: string
  readonly version: string
  /** `qemu64`, `Skylake-Client`, `max` … */
  readonly cpuModels: ReadonlySet<string>
  /** By each name it goes by: `pc` and `pc-i440fx-7.2` are the same one. */
  readonly machineTypes: ReadonlyMap<string, { readonly name: string; readonly maxCpus: number }>
}

const ANSWER_WITHIN_MS = 30_000
const QUESTIONS = ['query-version', 'query-cpu-definitions', 'query-machines'] as const satisfies readonly (keyof QmpCommands)[]

/** @param name `qemu-system-x86_64`, or a path. @throws ServiceError `unavailable` where there is none, or it does not answer */
export async function findProgram(name: string): Promise<QemuProgram> {
  const path = await pathOf(name)
  const answers = await ask(path)
  const [version, cpus, machines] = answers as [
    QmpCommands['query-version'][1],
    QmpCommands['query-cpu-definitions'][1],
    QmpCommands['query-machines'][1],
  ]
  const { major, minor, micro } = version.qemu
  const machineTypes = new Map<string, { name: string; maxCpus: number }>()
  for (const { name, alias, 'cpu-max': maxCpus } of machines) {
    machineTypes.set(name, { name, maxCpus })
    if (alias) machineTypes.set(alias, { name, maxCpus })
  }
  return { path, version: `${major}.${minor}.${micro}`, cpuModels: new Set(cpus.map((cpu) => cpu.name)), machineTypes }
}

async function pathOf(name: string): Promise<string> {
  const folders = name.includes('/') ? [''] : (process.env.PATH ?? '').split(delimiter)
  for (const folder of folders) {
    const path = folder === '' ? name : join(folder, name)
    const isProgram = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (isProgram) return path
  }
  throw new ServiceError(
    'unavailable',
    `There is no ${name} on this host; install QEMU (on Debian: qemu-system-x86) to run machines.`,
  )
}

/** Asks over its standard input, without a machine: the answers come in order. */
async function ask(path: string): Promise<readonly unknown[]> {
  const args = ['-machine', 'none', '-nodefaults', '-no-user-config', '-display', 'none', '-S']
  args.push('-chardev', 'stdio,id=qmp,signal=off', '-mon', 'chardev=qmp,mode=control')
  const child = spawn(path, args, { stdio: ['pipe', 'pipe', 'ignore'], timeout: ANSWER_WITHIN_MS, killSignal: 'SIGKILL' })
  const ended = new Promise<void>((done) => {
    child.once('error', () => done())
    child.once('close', () => done())
  })
  child.stdin.on('error', () => {}) // it may be gone before it has read all
  for (const command of ['qmp_capabilities', ...QUESTIONS, 'quit']) child.stdin.write(`${JSON.stringify({ execute: command })}\n`)
  const answers: unknown[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    const object = objectOf(line)
    if (object && 'return' in object) answers.push(object.return)
  }
  await ended
  if (answers.length < QUESTIONS.length + 1) {
    throw new ServiceError('unavailable', `${path} does not say what it can do; try "${path} -machine none" by hand.`)
  }
  return answers.slice(1)
}
