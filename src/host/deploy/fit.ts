import { architectureNamed } from '../../base/architecture.ts'
import { ServiceError } from '../../base/errors.ts'
import { formatBytes, GiB, MiB } from '../../base/units.ts'
import { isModel, patternsIn } from './server-models.ts'
import type { Machine } from './this-machine.ts'

/** What an image says of the machines that it can run on. */
export interface Demands {
  readonly name: string
  readonly minDiskGb: number
  readonly minRamMb: number
  readonly properties: Readonly<Record<string, string>>
}
export interface FitTarget {
  readonly bytes: number
  readonly sectorBytes: number
  /** In what the image's partition table counts; null where it has none that says so. */
  readonly tableSectorBytes: number | null
}

/** Of the memory that is built in, what firmware and kernel may keep. */
const KEPT_MEMORY = 1 / 8
const SHOWN_PATTERNS = 20

/**
 * Whether the image can start from this disk on this machine, asked before anything is written.
 * @throws ServiceError `conflict` with all that is in the way, and what would fit
 */
export function assertFits(image: Demands, machine: Machine, target: FitTarget): void {
  const problems = misfits(image, machine, target)
  if (problems.length === 0) return
  const message = `${image.name} does not fit this machine: ${problems.join('; ')}. Nothing was written; --force-model writes it all the same`
  throw new ServiceError('conflict', message, { problems: problems.length })
}

/** One sentence each. */
export function misfits({ minDiskGb, minRamMb, properties }: Demands, machine: Machine, target: FitTarget): readonly string[] {
  const own = (name: string) => (Object.hasOwn(properties, name) ? properties[name]!.trim() : '')
  const needBytes = Math.max(minDiskGb * GiB, Number(own('rootdisk_min_bytes')) || 0)
  const problems = [
    modelProblem(own('server_models'), machine),
    architectureProblem(own('hw_architecture') || own('architecture'), machine),
    firmwareProblem(own('hw_firmware_type').toLowerCase(), machine),
    needBytes > target.bytes && `it needs a disk of ${formatBytes(needBytes)}, and this one has ${formatBytes(target.bytes)}`,
    minRamMb * MiB * (1 - KEPT_MEMORY) > machine.memoryBytes &&
      `it needs ${minRamMb} MiB of memory, and this machine has ${Math.floor(machine.memoryBytes / MiB)}`,
    own('img_type') === 'partition' && 'it is one partition (img_type), not a whole disk: write it to a partition by other means',
    target.tableSectorBytes !== null &&
      target.tableSectorBytes !== target.sectorBytes &&
      `its partition table counts blocks of ${target.tableSectorBytes} bytes, and this disk has blocks of ${target.sectorBytes}: firmware would not find it`,
  ]
  return problems.filter((problem) => typeof problem === 'string')
}

function modelProblem(property: string, { models }: Machine): string | null {
  const patterns = patternsIn(property)
  if (patterns.length === 0 || models.some((model) => patterns.some((pattern) => isModel(pattern, model)))) return null
  const [shown] = models
  const what = shown
    ? `this is a ${[shown.maker, shown.product].filter(Boolean).join(' ')}`
    : 'this machine does not say what it is (DMI)'
  const more = patterns.length > SHOWN_PATTERNS ? ` and ${patterns.length - SHOWN_PATTERNS} more` : ''
  return `it is made for ${patterns.slice(0, SHOWN_PATTERNS).join('; ')}${more} (server_models), and ${what}`
}

/** i386 and its kin run on x86_64. */
const runsOn: Readonly<Record<string, RegExp>> = { x86_64: /^(x86_64|i[3-6]86|x86)$/ }

function architectureProblem(wanted: string, { architecture }: Machine): string | null {
  const name = architectureNamed(wanted.toLowerCase())
  const doesRun = name === '' || name === architecture || runsOn[architecture]?.test(name)
  return doesRun ? null : `it is made for ${name} processors (hw_architecture), and this machine has ${architecture}`
}

function firmwareProblem(wanted: string, { firmware }: Machine): string | null {
  if (wanted === '' || wanted === firmware) return null
  return `it starts by ${wanted.toUpperCase()} (hw_firmware_type), and this machine was started by ${firmware.toUpperCase()}: change that in its firmware, and start it anew`
}
