import { formatBytes } from '../../base/units.ts'
import type { Anatomy, SystemFacts, VolumeFacts } from '../../disk/guest/anatomy.ts'
import type { Account } from '../../disk/guest/customisation/accounts.ts'
import type { Output } from '../output.ts'
import { safeText } from '../safe-text.ts'

const BAR_PARTS = 10
/** Of a list that is long, so many are named. */
const NAMED = 6

/** `████░░░░░░ 41 % of 2.0 GiB`; null where nothing is known. */
export function usedText(volume: VolumeFacts | undefined): string | null {
  if (!volume || volume.usedBytes === null || volume.totalBytes === null || volume.totalBytes === 0) return null
  const share = Math.min(1, volume.usedBytes / volume.totalBytes)
  const full = Math.round(share * BAR_PARTS)
  return `${'█'.repeat(full)}${'░'.repeat(BAR_PARTS - full)} ${Math.round(share * 100)} % of ${formatBytes(volume.totalBytes)}`
}

/** Each system on its page. */
export function printSystems(systems: Anatomy['systems'], out: Output): void {
  for (const system of systems) {
    out.line()
    out.line(`${out.tone('system', 'strong')}  on ${safeText(system.volume)}`)
    out.record(linesOf(system))
    for (const note of system.notes) out.line(`  · ${safeText(note)}`)
  }
}

function linesOf({
  os,
  mounts,
  accounts,
  services,
  repositories,
  changedFiles,
  software,
}: SystemFacts): [string, string | null][] {
  const lines: [string, string | null][] = []
  if (os) {
    const version = os.fullVersion !== '' && !os.name.includes(os.fullVersion) ? ` (${os.fullVersion})` : ''
    const more = [os.architecture, os.init, os.hostname === null ? null : `host ${os.hostname}`].filter((each) => each !== null)
    lines.push(['is', [`${os.name}${version}`, ...more].join(', ')])
  }
  const mounted = mounts.filter(({ volume }) => volume !== null)
  if (mounted.length > 0) lines.push(['mounts', mounted.map(({ path, volume }) => `${path} from ${volume}`).join(', ')])
  if (accounts) lines.push(['log in', some(accounts.filter(({ canLogIn }) => canLogIn).map(accountText)) ?? 'nobody'])
  if (services) lines.push(['starts', some(services.map(({ unit }) => unit.replace(/\.service$/, ''))) ?? 'nothing of its own'])
  if (software) lines.push(['software', [countsText(software.packages), ...software.failures].join('; ')])
  if (repositories) {
    lines.push([
      'packages from',
      some([...new Set(repositories.filter(({ isEnabled }) => isEnabled).map(({ url }) => url))]) ?? 'nowhere',
    ])
  }
  if (changedFiles) {
    const { files, compared } = changedFiles
    const names = some(files.map(({ path, state }) => `${path}${state === 'missing' ? ' (gone)' : ''}`))
    lines.push(['changed', `${names ?? 'nothing'}, of ${compared} configuration files`])
  }
  return lines
}

/** `246 deb`. */
function countsText(packages: readonly { readonly kind: string }[]): string {
  const counts = new Map<string, number>()
  for (const { kind } of packages) counts.set(kind, (counts.get(kind) ?? 0) + 1)
  return [...counts].map(([kind, count]) => `${count} ${kind} packages`).join(', ') || 'no packages'
}

function accountText({ name, password, keys }: Account): string {
  const by = [password === 'set' ? 'password' : password === 'empty' ? 'no password' : null, keysText(keys.length)]
  return `${name} (${by.filter((each) => each !== null).join(', ')})`
}

const keysText = (count: number): string | null => (count === 0 ? null : count === 1 ? '1 key' : `${count} keys`)

function some(names: readonly string[]): string | undefined {
  if (names.length === 0) return undefined
  const rest = names.length - NAMED
  return rest > 0 ? `${names.slice(0, NAMED).join(', ')} and ${rest} more` : names.join(', ')
}
