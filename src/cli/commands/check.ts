import { readFile, stat } from 'node:fs/promises'
import { ServiceError } from '../../base/errors.ts'
import { formatBytes, MiB } from '../../base/units.ts'
import { checkFiles } from '../../disk/guest/findings/check.ts'
import { type Finding, type Findings, isAtLeast, type Level, levels } from '../../disk/guest/findings/finding.ts'
import { parseRequirements, type Requirement } from '../../disk/guest/findings/required.ts'
import { type RuleId, rules } from '../../disk/guest/findings/rules.ts'
import { command } from '../command.ts'
import { endedBy } from '../disk-file/convert-file.ts'
import { openGuestFiles, volumeOption } from '../disk-file/guest-files.ts'
import { withAdvice } from '../disk-file/open-disk.ts'
import { diskOptions, PLACE, placesOf, spoolOption } from '../disk-file/open-file.ts'
import type { Output, Tone } from '../output.ts'
import { Progress, type TransferState } from '../progress.ts'
import { safeText } from '../safe-text.ts'

const DEFAULT_LEVEL = 'medium'
const MAX_RULES_BYTES = MiB

export const check = command({
  name: 'check',
  summary: 'Say what a disk image gives away, and what was not made general, before others get it',
  description: [
    'Reads the files on the disk, without mounting or starting it: keys, passwords, credentials, histories, logs, the identity and the',
    'network of the machine that it was made on. No secret is printed. Status 1: there are findings of the level or above, or something could',
    'not be looked at. docs/findings.md has every rule, what it means, and what to do.',
  ].join('\n'),
  arguments: { file: { help: PLACE, completes: 'file' } },
  options: {
    level: { type: 'choice', choices: levels, help: `what makes the status 1, with all above it (default: ${DEFAULT_LEVEL})` },
    rules: { type: 'text', value: 'FILE', completes: 'file', help: 'what images must carry, as JSON: docs/findings.md' },
    ...volumeOption,
    ...diskOptions,
    ...spoolOption,
  },
  examples: [
    ['imprint check debian-12.qcow2', 'everything that was found'],
    ['imprint check upload.img --level high --json', 'for programs; only what is high fails'],
    ['imprint check debian-12.qcow2 --rules agents.json', 'with what images must carry'],
  ],
  exits: [3],
  async run(given, { out, signal }) {
    const { file, level = DEFAULT_LEVEL, rules: rulesFile, volume, from, snapshot, parent, part, member, spoolBytes } = given
    const progress = new Progress(out)
    try {
      const requirements = rulesFile === undefined ? [] : await readRules(rulesFile)
      const onProgress = (state: TransferState) => progress.show(state)
      const openFile = placesOf({ spoolBytes, signal, onProgress })
      const wish = { source: file, from, snapshot, parents: parent, parts: part, member, volume }
      await using files = await openGuestFiles(wish, openFile, onProgress)
      const { tree, family, others, unseen, swap } = files
      const found = await checkFiles(tree, { family, requirements, others, unseen, swap, signal })
      progress.end()
      const passes = found.isComplete && !found.findings.some((each) => isAtLeast(each.level, level))
      const notes = [...files.notes, ...found.notes]
      out.result({ passes, level, ...found, notes }, () => print(file, { ...found, notes }, { passes, level }, out))
      return passes ? 0 : 1
    } catch (error) {
      throw withAdvice(endedBy(signal, error))
    } finally {
      progress.end()
    }
  },
})

async function readRules(path: string): Promise<readonly Requirement[]> {
  try {
    const { size } = await stat(path)
    if (size > MAX_RULES_BYTES) throw new ServiceError('too-large', `it has ${size} bytes, more than ${MAX_RULES_BYTES}`)
    return parseRequirements(JSON.parse(await readFile(path, 'utf8')))
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    throw new ServiceError('invalid-request', `the rules in ${safeText(path)}: ${safeText(message)}`, {}, { cause: error })
  }
}

const toneOf: Readonly<Record<Level, Tone>> = { high: 'bad', medium: 'strong', low: 'plain', info: 'dim' }
const markOf: Readonly<Record<Level, string>> = { high: '✗', medium: '!', low: '·', info: '·' }
const MAX_PATHS = 20

function print(file: string, found: Findings, verdict: { passes: boolean; level: Level }, out: Output): void {
  const { findings, notes, isComplete, looked } = found
  out.line(out.tone(safeText(file), 'strong'))
  out.line(out.tone(`${looked.files} files looked at, ${formatBytes(looked.readBytes)} of text read`, 'dim'))
  for (const [rule, same] of byRule(findings)) printRule(rule, same, out)
  if (notes.length > 0) {
    out.line()
    out.line(out.tone(isComplete ? 'notes' : 'not everything could be looked at', isComplete ? 'strong' : 'bad'))
    for (const note of notes) out.line(`  · ${safeText(note)}`)
  }
  out.line()
  out.line(verdictOf(found, verdict, out))
}

/** As they come: the worst first. A rule that an operator gave two levels stands twice. */
function byRule(findings: readonly Finding[]): (readonly [RuleId, readonly Finding[]])[] {
  const groups = new Map<string, Finding[]>()
  for (const each of findings) {
    const key = `${each.level} ${each.rule}`
    const group = groups.get(key) ?? []
    groups.set(key, group)
    group.push(each)
  }
  return [...groups.values()].map((group) => [group[0]!.rule, group] as const)
}

function printRule(rule: RuleId, findings: readonly Finding[], out: Output): void {
  const { level, remedy } = findings[0]!
  out.line()
  out.line(`${out.tone(`${markOf[level]} ${level}`.padEnd(8), toneOf[level])}  ${out.tone(rule, 'strong')}  ${rules[rule].means}`)
  for (const { path, what } of findings.slice(0, MAX_PATHS))
    out.line(`${' '.repeat(10)}${path === null ? safeText(what) : `${safeText(path)}  ${out.tone(safeText(what), 'dim')}`}`)
  if (findings.length > MAX_PATHS) out.line(`${' '.repeat(10)}and ${findings.length - MAX_PATHS} more: --json has them`)
  out.line(`${' '.repeat(10)}${out.tone('→', 'good')} ${safeText(remedy)}`)
}

function verdictOf(
  { findings, isComplete }: Findings,
  { passes, level }: { passes: boolean; level: Level },
  out: Output,
): string {
  const counts = levels
    .toReversed()
    .flatMap((each) => {
      const count = findings.filter((finding) => finding.level === each).length
      return count === 0 ? [] : [`${count} ${each}`]
    })
    .join(', ')
  const said = counts === '' ? 'nothing found' : counts
  if (passes) return `${out.tone('✓ fit for others', 'good')}: ${said}; nothing of level ${level} or above`
  if (!findings.some((each) => isAtLeast(each.level, level)))
    return `${out.tone('✗ not known to be fit for others', 'bad')}: ${said}, and not everything could be looked at`
  return `${out.tone('✗ not fit for others', 'bad')}: ${said}${isComplete ? '' : ', and not everything could be looked at'}`
}
