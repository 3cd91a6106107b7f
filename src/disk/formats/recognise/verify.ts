import { ServiceError } from '../../../base/errors.ts'
import { isoCompanions } from './content.ts'
import type { Found, Recognition } from './recognition.ts'

/** Glance's names of disk formats, and `qed`, which has none there: only files of this machine can be declared as such. The Amazon three stand for kernel, ramdisk and root file system: any bytes that are no disk format. */
export const diskFormats = ['raw', 'qcow2', 'vhd', 'vhdx', 'vmdk', 'vdi', 'iso', 'ploop', 'qed', 'ami', 'ari', 'aki'] as const
const amazonParts: readonly string[] = ['ami', 'ari', 'aki']
/** Containers whose bytes are an archive or a compressed stream around the disk. */
const wrappingContainers: readonly string[] = ['ova', 'ovf', 'docker', 'compressed']

/**
 * Holds an image to what its owner declared: the one format that is found must be the declared one.
 *
 * @param declared   Glance `disk_format`
 * @param containerFormat  Glance `container_format`. With `bare`, a wrapper (gzip, tar …) declared as raw is refused; without
 *   it, that is a warning. Inside `ova`, `docker`, `compressed` a wrapper is expected; `ami`, `ari`, `aki` take any bytes
 *   that are no disk format, whatever `disk_format` says, as in Glance.
 * @param isGiven  what the file refers to is given, and its driver says whether that is all of it: that it refers to something is no reason to refuse it
 * @returns warnings for people, one sentence each
 * @throws ServiceError `invalid-image`: declared and found differ, several formats at once, a reference to another file,
 *   a malformed header; `unsupported`: an unknown name, encryption. `details.reason` has a stable word
 */
export function verifyDeclared(
  declared: string,
  recognition: Recognition,
  containerFormat?: string,
  { isGiven = false } = {},
): readonly string[] {
  if (!(diskFormats as readonly string[]).includes(declared)) {
    throw new ServiceError('unsupported', `the disk format "${declared}" is not known; known are ${diskFormats.join(', ')}`)
  }
  const { found } = recognition
  const disks = found.filter(({ kind }) => kind === 'disk')
  const wrappers = found.filter(({ kind }) => kind === 'wrapper')
  const [disk] = disks
  if (disks.length > 1) throw severalFormats(disks)
  if (disk) checkDisk(declared, disk, found)
  for (const { refusal } of found) {
    if (refusal && !(isGiven && refusal.details.reason === 'external-reference')) throw refusal
  }

  const takesAnything = declared === 'raw' || amazonParts.includes(declared)
  const isPart = containerFormat !== undefined && amazonParts.includes(containerFormat)
  const isWrapped = containerFormat !== undefined && wrappingContainers.includes(containerFormat) && wrappers.length > 0
  if (!disk && !takesAnything && !isPart && !isWrapped) throw mismatch(declared, found)
  const [wrapper] = wrappers
  const notes = found.flatMap(({ note }) => (note === null ? [] : [note]))
  if (wrapper === undefined || isWrapped || declared !== 'raw') return notes
  const advice = `the file is a ${wrapper.name} file, not a disk: unpack it first, or declare the container format that it is`
  if (containerFormat === 'bare')
    throw new ServiceError('invalid-image', advice, { reason: 'format-mismatch', declared, found: wrapper.name })
  return [...notes, advice]
}

/**
 * The `disk_format` to declare for such a file: that of the one disk format in it, `raw` where there is none.
 * Null when nothing fits: a wrapper, several formats, or one without a name in Glance.
 */
export function suggestedFormat({ found }: Recognition): string | null {
  const disks = found.filter(({ kind }) => kind === 'disk')
  if (disks.length > 0) return disks.length === 1 ? (disks[0]?.diskFormat ?? null) : null
  return found.some(({ kind }) => kind === 'wrapper') ? null : 'raw'
}

function checkDisk(declared: string, disk: Found, found: readonly Found[]): void {
  if (disk.diskFormat !== declared) throw mismatch(declared, [disk])
  if (disk.plain) return
  const others = found.filter((other) => other !== disk && !(declared === 'iso' && isoCompanions.includes(other.name)))
  if (others.length > 0) throw severalFormats([disk, ...others])
}

const severalFormats = (found: readonly Found[]): ServiceError => {
  const names = found.map(({ name }) => name).join(', ')
  return new ServiceError(
    'invalid-image',
    `the file is several formats at once (${names}), so that programs would disagree about what it holds; convert it with a trusted tool`,
    { reason: 'multiple-formats', found: names },
  )
}

function mismatch(declared: string, found: readonly Found[]): ServiceError {
  const names = found.map(({ name }) => name).join(', ')
  const [first] = found
  const is = names === '' ? 'nothing that is known' : names
  const advice =
    first?.kind === 'disk'
      ? first.diskFormat === null
        ? 'convert it to qcow2 or raw first'
        : `declare it as ${first.diskFormat}`
      : first?.kind === 'wrapper'
        ? 'unpack it first'
        : 'if it is a plain disk, declare it as raw'
  return new ServiceError('invalid-image', `the image is declared as ${declared}, but the file holds ${is}; ${advice}`, {
    reason: 'format-mismatch',
    declared,
    found: names,
  })
}
