import type { ServiceError } from '../../base/errors.ts'
import { formatBytes } from '../../base/units.ts'
import { type Appliance, startable } from '../../disk/containers/index.ts'
import type { Fact, Found } from '../../disk/formats/index.ts'
import { command } from '../command.ts'
import { type Allocation, drawn } from '../disk-file/allocation.ts'
import { printSystems, usedText } from '../disk-file/anatomy-text.ts'
import { endedBy } from '../disk-file/convert-file.ts'
import { type InspectedDisk, type InspectedTable, type Inspection, inspectFile } from '../disk-file/inspect-file.ts'
import { layersText } from '../disk-file/look-into.ts'
import { GIVE } from '../disk-file/open-disk.ts'
import { diskOptions, PLACE, placesOf, spoolOption } from '../disk-file/open-file.ts'
import type { Output } from '../output.ts'
import { Progress, type TransferState } from '../progress.ts'
import { safeText } from '../safe-text.ts'

export const inspect = command({
  name: 'inspect',
  summary: 'Say what a disk image is, what is in it, and whether it is safe to use',
  description: [
    'Looks at every table of the file, never at another file that it names, and never trusts what it says of itself. Compression and',
    'archives around the disk are taken off; of an OVA, the machine is told as well, and what an image made of it should say.',
    'Of the systems on the disk: what they are, who can log in, what they start, where packages come from, and which configuration was changed.',
    'Status 1: it would be refused; the report says why.',
  ].join('\n'),
  arguments: { file: { help: PLACE, completes: 'file' } },
  options: {
    ...diskOptions,
    ...spoolOption,
  },
  examples: [
    ['imprint inspect debian-12.qcow2', 'for people'],
    ['imprint inspect upload.img --json', 'for programs'],
  ],
  exits: [3],
  async run({ file, from, snapshot, parent, part, member, spoolBytes }, { out, signal }) {
    const progress = new Progress(out)
    try {
      const onProgress = (state: TransferState) => progress.show(state)
      const openFile = placesOf({ spoolBytes, signal, onProgress })
      const wish = { source: file, from, snapshot, parents: parent, parts: part, member }
      const found = await inspectFile(wish, openFile, { signal, onProgress })
      progress.end()
      out.result(documentOf(file, found), () => print(file, found, out))
      return found.refusal ? 1 : 0
    } catch (error) {
      throw endedBy(signal, error)
    } finally {
      progress.end()
    }
  },
})

function documentOf(path: string, found: Inspection) {
  const { fileBytes, allocatedBytes, layers, appliance, recognition, facts, refusal, disk } = found
  return {
    file: { path, bytes: fileBytes, allocatedBytes },
    layers,
    machine: appliance && machineOf(appliance),
    found: recognition.found.map(({ refusal: why, ...found }) => ({ ...found, refusal: why?.message ?? null })),
    verdict: refusal
      ? {
          accepted: false,
          code: refusal.code,
          reason: refusal.details.reason ?? null,
          message: refusal.message,
          details: refusal.details,
        }
      : { accepted: true },
    facts,
    disk,
  }
}

/** What a package says of its machine, and what an image of it should say. */
function machineOf({ name, descriptor, hints, hasManifest }: Appliance) {
  const { vcpus, coresPerSocket, minDiskGiB } = hints
  const { minRamMiB, properties, warnings } = startable(hints)
  const { system, hardwareTypes } = descriptor.machine
  return {
    name,
    hardwareTypes,
    system: system.description || system.vendorType || null,
    vcpus: vcpus ?? null,
    coresPerSocket: coresPerSocket ?? null,
    isVerified: hasManifest,
    image: { minRamMb: minRamMiB, minDiskGb: minDiskGiB, properties, warnings },
  }
}

function print(path: string, found: Inspection, out: Output): void {
  const { fileBytes, allocatedBytes, layers, appliance, recognition, facts, refusal, disk } = found
  const taken =
    allocatedBytes === null || allocatedBytes >= fileBytes ? '' : `, of which ${formatBytes(allocatedBytes)} are on the disk`
  out.line(out.tone(safeText(path), 'strong'))
  out.record([
    ['format', layersText(layers, disk?.format ?? namesOf(recognition.found))],
    ...(disk ? ([['disk', sized(disk.virtualBytes)]] as const) : []),
    ['file', `${sized(fileBytes)}${taken}`],
    ...(disk ? aboutDisk(disk) : []),
    ...facts.map(({ name, value, unit }): [string, string] => [name, unit ? formatBytes(Number(value)) : worded(value)]),
  ])
  if (disk) {
    printMap(disk.allocation, out)
    if (disk.partitions) printPartitions(disk.partitions, disk.volumes, out)
    printAnatomy(disk, out)
    if (disk.snapshots.length > 0) printSnapshots(disk, out)
  }
  if (appliance) printMachine(appliance, out)
  out.line()
  printVerdict(refusal, disk?.notes ?? [], out)
}

const sized = (bytes: number): string => `${formatBytes(bytes)} (${bytes} bytes)`
const worded = (value: Fact['value']): string => (typeof value === 'boolean' ? (value ? 'yes' : 'no') : safeText(String(value)))
const namesOf = (found: readonly Found[]): string => found.map(({ name }) => name).join(' + ') || 'not recognised'

function aboutDisk({ allocation, partitions, holds }: InspectedDisk): [string, string][] {
  const { dataBytes, zeroBytes, holeBytes } = allocation
  const all = dataBytes + zeroBytes + holeBytes
  const share = (bytes: number) => `${formatBytes(bytes)}${all > 0 ? ` (${Math.round((100 * bytes) / all)} %)` : ''}`
  const pairs: [string, string][] = [['data', share(dataBytes)]]
  if (zeroBytes > 0) pairs.push(['zeros', share(zeroBytes)])
  if (holeBytes > 0) pairs.push(['holes', share(holeBytes)])
  if (!partitions && holds.length > 0) pairs.push(['holds', holds.join(', ')])
  return pairs
}

function printMap({ shares }: Allocation, out: Output): void {
  if (shares.length === 0) return
  out.line()
  out.line(`▕${drawn(shares)}▏`)
  const end = '100 %'
  out.line(out.tone(` 0 %${' '.repeat(shares.length / 2 - 5)}50 %${' '.repeat(shares.length / 2 - end.length - 2)}${end}`, 'dim'))
}

function printPartitions(
  { scheme, sectorBytes, partitions, notes }: InspectedTable,
  volumes: InspectedDisk['volumes'],
  out: Output,
): void {
  const volumeOf = (number: number) => volumes.find(({ partition }) => partition === number)
  out.line()
  out.line(`${out.tone('partitions', 'strong')}  ${scheme}, sectors of ${sectorBytes} bytes`)
  const hasNames = partitions.some(({ name }) => name !== '')
  if (partitions.length > 0) {
    out.table(partitions, [
      { title: '#', value: ({ number }) => number, align: 'right' },
      { title: 'start', value: ({ offset }) => formatBytes(offset), align: 'right' },
      { title: 'size', value: ({ length }) => formatBytes(length), align: 'right' },
      { title: 'type', value: ({ typeName, type }) => typeName ?? type },
      ...(hasNames ? [{ title: 'name', value: ({ name }: { readonly name: string }) => name || null }] : []),
      { title: 'holds', value: ({ number, holds }) => volumeOf(number)?.type ?? (holds.join(', ') || null) },
      { title: 'label', value: ({ number }) => volumeOf(number)?.label || null },
      { title: 'used', value: ({ number }) => usedText(volumeOf(number)) },
    ])
  }
  for (const note of notes) out.line(out.tone(`! ${safeText(note)}`, 'bad'))
}

/** Volumes that are no partitions, and the systems. */
function printAnatomy({ volumes, systems }: InspectedDisk, out: Output): void {
  const others = volumes.filter(({ partition, type }) => partition === null && type !== null)
  if (others.length > 0) {
    out.line()
    out.line(out.tone('volumes', 'strong'))
    out.table(others, [
      { title: 'name', value: ({ name }) => name },
      { title: 'size', value: ({ bytes }) => formatBytes(bytes), align: 'right' },
      { title: 'holds', value: ({ type }) => type },
      { title: 'label', value: ({ label }) => label || null },
      { title: 'used', value: (volume) => usedText(volume) },
    ])
  }
  for (const { name, notes } of volumes) for (const note of notes) out.line(out.tone(`! ${safeText(`${name}: ${note}`)}`, 'bad'))
  printSystems(systems, out)
}

function printSnapshots({ snapshots }: InspectedDisk, out: Output): void {
  out.line()
  out.line(out.tone('snapshots', 'strong'))
  out.table(snapshots, [
    { title: 'id', value: ({ id }) => id },
    { title: 'name', value: ({ name }) => name || null },
    { title: 'disk', value: ({ virtualBytes }) => formatBytes(virtualBytes), align: 'right' },
    { title: 'made', value: ({ at }) => madeAt(at) },
  ])
}

function printMachine(appliance: Appliance, out: Output): void {
  const { name, hardwareTypes, system, vcpus, isVerified, image } = machineOf(appliance)
  out.line()
  out.line(`${out.tone('machine', 'strong')}  ${safeText(name)}`)
  out.record([
    ['hardware', hardwareTypes.join(' ') || null],
    ['system', system],
    ['processors', vcpus],
    ['manifest', isVerified ? 'every digest is right' : 'none'],
    ['min_ram', image.minRamMb],
    ['min_disk', image.minDiskGb],
    ...Object.entries(image.properties),
  ])
  for (const warning of image.warnings) out.line(`  · ${safeText(warning)}`)
}

/** A file may say any number. */
const madeAt = (at: number): string | null =>
  Math.abs(at) <= 8.64e15 ? new Date(at).toISOString().slice(0, 19).replace('T', ' ') : null

function printVerdict(refusal: ServiceError | null, notes: readonly string[], out: Output): void {
  if (!refusal) {
    const but = notes.length > 0 ? ', with remarks' : ''
    out.line(`${out.tone(`✓ safe${but}`, 'good')}: one format, no file but those given, every table in its place`)
    for (const note of notes) out.line(`  · ${safeText(note)}`)
    return
  }
  const reason = String(refusal.details.reason ?? refusal.code)
  out.line(`${out.tone(`✗ refused: ${safeText(reason)}`, 'bad')}`)
  out.line(`  ${safeText(refusal.message)}`)
  const { reason: _, format: __, ...facts } = refusal.details
  for (const [name, value] of Object.entries(facts)) out.line(out.tone(`  ${safeText(name)} = ${safeText(String(value))}`, 'dim'))
  if (reason === 'external-reference') out.line(`  ${GIVE}`)
}
