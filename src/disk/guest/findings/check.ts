import { isServiceError } from '../../../base/errors.ts'
import type { FileTree } from '../filesystems/file-tree.ts'
import { access } from './access.ts'
import { cloudInit } from './cloud-init.ts'
import { type Finding, type Findings, levels } from './finding.ts'
import { identity } from './identity.ts'
import { Look, type LookOptions, type NewCheck } from './look.ts'
import { network } from './network.ts'
import { type Requirement, required } from './required.ts'
import { secrets } from './secrets.ts'
import { type SwapVolume, swapOn } from './swap.ts'
import { traces } from './traces.ts'
import { windows } from './windows.ts'

export interface CheckOptions extends LookOptions {
  readonly requirements?: readonly Requirement[]
  readonly swap?: readonly SwapVolume[]
  /** File systems of the same disk that the tree does not show. */
  readonly others?: readonly { readonly name: string; readonly tree: FileTree; readonly family: LookOptions['family'] }[]
  /** Parts of the disk that the tree does not show, a sentence each: nothing is clean beside them. */
  readonly unseen?: readonly string[]
}

/** Programs and what the kernel makes: of packages, and the same in every machine. `/usr/local` is walked of its own. */
const prunedOnLinux: readonly string[] = [
  '/bin',
  '/dev',
  '/lib',
  '/lib32',
  '/lib64',
  '/libx32',
  '/proc',
  '/run',
  '/sbin',
  '/snap',
  '/sys',
  '/usr',
  '/var/lib/dpkg/info',
  '/var/lib/dpkg/alternatives',
  '/var/lib/rpm',
  '/var/lib/pacman/local',
]
/** Lower case: names are the same in either. */
const prunedOnWindows =
  /^\/(?:program files(?: \(x86\))?|system volume information|\$recycle\.bin|\$windows\.~bt|windows\/(?!panther(?:\/|$)|system32(?:\/|$)|temp(?:\/|$))[^/]*|windows\/system32\/(?!sysprep(?:\/|$)|winevt(?:\/|$))[^/]*)$/
/** Of each walk; about 20 µs each. */
const MAX_NODES = 1_000_000

const MAX_OTHERS = 16

/**
 * What an image gives away, or keeps of the machine that it was made on, by reading its files alone: one walk over the tree, without
 * the programs of packages, of which each check is told; texts are read once, each to 1 MiB and all to 128 MiB. What cannot be looked at
 * is said, and the answer is then not complete. Secrets are in no answer.
 */
export async function checkFiles(tree: FileTree, options: CheckOptions): Promise<Findings> {
  const { others = [], signal } = options
  const all = [await checkTree(tree, options)]
  for (const { name, tree, family } of others.slice(0, MAX_OTHERS))
    all.push(within(name, await checkTree(tree, { family, signal })))
  const notes = all.flatMap((each) => each.notes)
  for (const { name } of others.slice(MAX_OTHERS)) notes.push(`${name} was not looked at: it is one of more than ${MAX_OTHERS}`)
  const sum = (count: keyof Findings['looked']) => all.reduce((total, { looked }) => total + looked[count], 0)
  return {
    findings: all.flatMap(({ findings }) => findings).sort(byWeight),
    notes,
    isComplete: others.length <= MAX_OTHERS && all.every(({ isComplete }) => isComplete),
    looked: { files: sum('files'), readFiles: sum('readFiles'), readBytes: sum('readBytes') },
  }
}

const within = (name: string, found: Findings): Findings => ({
  ...found,
  findings: found.findings.map((each) => ({ ...each, what: `${name}: ${each.what}` })),
  notes: found.notes.map((note) => `${name}: ${note}`),
})

async function checkTree(tree: FileTree, options: Omit<CheckOptions, 'others'>): Promise<Findings> {
  const { requirements = [], swap = [], unseen = [] } = options
  const look = new Look(tree, options)
  for (const each of unseen) look.unseen(each)
  const themes: readonly NewCheck[] = [
    access,
    identity,
    network,
    cloudInit,
    traces,
    secrets,
    swapOn(swap),
    windows,
    required(requirements),
  ]
  const checks = themes.map((theme) => theme(look))
  for (const check of checks) await check.places?.()
  for (const start of look.family === 'linux' ? ['/', '/usr/local'] : ['/'])
    await walk(look, start, async (file) => {
      for (const check of checks) await check.file?.(file)
    })
  for (const check of checks) await check.end?.()
  const { notes, isComplete, files, readFiles, readBytes } = look
  return { findings: look.findings, notes, isComplete, looked: { files, readFiles, readBytes } }
}

async function walk(look: Look, start: string, onFile: (file: ReturnType<Look['visited']>) => Promise<void>): Promise<void> {
  const { tree, family, signal } = look
  const prune = (path: string): boolean =>
    family === 'linux' ? prunedOnLinux.includes(path) : prunedOnWindows.test(path.toLowerCase())
  const onDamage = (path: string, error: Error) => look.unseen(`${path} could not be looked at whole: ${error.message}`)
  try {
    for await (const found of tree.walk(start, { signal, prune, onDamage, maxNodes: MAX_NODES })) {
      if (found.node.kind !== 'file') continue
      look.files += 1
      await onFile(look.visited(found))
    }
  } catch (error) {
    if (!isServiceError(error) || error.code === 'cancelled') throw error
    look.unseen(`${start} could not be looked at whole: ${error.message}`)
  }
}

function byWeight(a: Finding, b: Finding): number {
  const weight = levels.indexOf(b.level) - levels.indexOf(a.level)
  if (weight !== 0) return weight
  return a.rule === b.rule ? order(a.path ?? '', b.path ?? '') : order(a.rule, b.rule)
}

const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
