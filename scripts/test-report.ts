import { relative, resolve } from 'node:path'
import type { run } from 'node:test'
import { inspect } from 'node:util'

export interface TestReport {
  readonly passed: number
  readonly failed: number
  /** `file: name (reason)` */
  readonly skips: readonly string[]
  readonly files: readonly TimedFile[]
}
export interface TimedFile {
  /** From the root of the project. */
  readonly name: string
  readonly seconds: number
}

/** Shows what failed as it fails and one line a file, and counts tests: not suites, for they only hold tests. */
export async function report(events: ReturnType<typeof run>, say: (line: string) => void): Promise<TestReport> {
  const seen = { passed: 0, failed: 0, skips: [] as string[], files: [] as TimedFile[] }
  const stderrOf = new Map<string, string>() // the end of what each file's process printed: the reason when it does not load
  for await (const { type, data } of events) {
    if (type === 'test:pass' || type === 'test:fail') {
      const where = relative(process.cwd(), data.file ?? '')
      const isSuite = data.details.type === 'suite'
      if (data.skip !== undefined || data.todo !== undefined) {
        const reason = [data.skip, data.todo].find((given) => typeof given === 'string') ?? 'no reason given'
        if (!isSuite) seen.skips.push(`${where}: ${data.name} (${reason})`)
      } else if (type === 'test:pass') {
        if (!isSuite) seen.passed += 1
      } else if (!causedBelow(data.details.error)) {
        seen.failed += 1
        const isWholeFile = where === data.name
        say(`\n✖ ${where}:${data.line ?? ''} ${data.name}\n${indent(describe(data.details.error))}`)
        if (isWholeFile) say(indent(stderrOf.get(resolve(data.name)) ?? ''))
      }
    }
    if (type === 'test:stderr') {
      const file = resolve(data.file)
      stderrOf.set(file, ((stderrOf.get(file) ?? '') + data.message).slice(-4000))
    }
    if (type === 'test:summary' && data.file !== undefined) {
      const { passed, failed, cancelled, skipped } = data.counts
      const mark = failed + cancelled > 0 ? '✖' : '✔'
      const extra = `${failed + cancelled > 0 ? `, ${failed + cancelled} failed` : ''}${skipped > 0 ? `, ${skipped} skipped` : ''}`
      const file = { name: relative(process.cwd(), data.file), seconds: data.duration_ms / 1000 }
      seen.files.push(file)
      say(`${mark} ${file.name}: ${passed}${extra} (${file.seconds.toFixed(1)} s)`)
    }
  }
  return seen
}

/** A test or suite that failed only because one within it did: that one is reported. */
const causedBelow = (error: unknown) => (error as { failureType?: string } | null)?.failureType === 'subtestsFailed'

function describe(error: Error): string {
  const cause = error.cause ?? error
  return cause instanceof Error ? (cause.stack ?? String(cause)) : inspect(cause, { depth: 5, breakLength: 120 })
}

const indent = (text: string) => text.replace(/^/gm, '    ')
