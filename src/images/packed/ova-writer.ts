import { createHash } from 'node:crypto'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { type NewAppliance, type NewDisk, writeOva } from '../../disk/containers/index.ts'
import { type PackOptions, type StreamWriter, writerOf } from '../../disk/formats/index.ts'
import type { ImageRecord } from '../../store/catalog/catalog.ts'

type Machine = Omit<NewAppliance, 'disks'>
type Described = Pick<ImageRecord, 'id' | 'name' | 'minRam' | 'properties'>

const SECTOR_BYTES = 512
const USUAL_MEMORY_MIB = 1024
/** Words of VMware for what instances have; paravirtual for paravirtual. What none of them means stays out. */
const networkModels: Readonly<Record<string, string>> = {
  virtio: 'VmxNet3',
  e1000: 'E1000',
  e1000e: 'E1000e',
  rtl8139: 'PCNet32',
}
const diskBuses = ['ide', 'sata', 'scsi'] as const
const firmwares = ['bios', 'uefi'] as const

/**
 * The disk of an image as an OVA, whose machine is what the image says of its hardware. The manifest, with the size and the digest of the
 * disk's file, comes before that file: it is made twice, the first time for these.
 */
export function ovaWriterFor(image: Described): StreamWriter {
  const machine = machineOf(image)
  return {
    subformat: createHash('sha256').update(JSON.stringify(machine)).digest('hex').slice(0, 16),
    needsRewrite: true,
    async *pack(disk, options = {}) {
      const { signal } = options
      const capacityBytes = Math.ceil(disk.size / SECTOR_BYTES) * SECTOR_BYTES
      const about = { diskFormat: 'vmdk', capacityBytes, ...(await measured(disk, options)) } as const
      const file: NewDisk = { ...about, file: () => vmdkOf(disk, options) }
      yield* writeOva({ ...machine, disks: [file] }, signal ? { signal } : {})
    },
  }
}

function machineOf({ id, name, minRam, properties }: Described): Machine {
  const said = (property: string): string | undefined => {
    const value = Object.hasOwn(properties, property) ? properties[property] : undefined
    return value?.trim().toLowerCase()
  }
  const diskBus = diskBuses.find((bus) => bus === said('hw_disk_bus'))
  const firmware = firmwares.find((each) => each === said('hw_firmware_type'))
  const model = said('hw_vif_model') ?? 'e1000'
  return {
    name: name || id,
    vcpus: 1,
    memoryMiB: minRam || USUAL_MEMORY_MIB,
    ...(diskBus === undefined ? {} : { diskBus }),
    ...(said('hw_scsi_model') === 'virtio-scsi' ? { scsiModel: 'VirtualSCSI' } : {}),
    ...(firmware === undefined ? {} : { firmware }),
    secureBoot: said('os_secure_boot') === 'required',
    networkModels: Object.hasOwn(networkModels, model) ? [networkModels[model] as string] : [],
  }
}

/** streamOptimized is what all who read OVA know. */
function vmdkOf(disk: BlockSource, { signal }: PackOptions): AsyncIterable<Uint8Array> {
  const writer = writerOf('vmdk', 'streamOptimized')
  if ('pack' in writer) return writer.pack(disk, { signal })
  throw new Error('streamOptimized is made from front to back')
}

async function measured(disk: BlockSource, options: PackOptions): Promise<Pick<NewDisk, 'fileBytes' | 'sha256'>> {
  const hash = createHash('sha256')
  let fileBytes = 0
  for await (const piece of vmdkOf(disk, options)) {
    hash.update(piece)
    fileBytes += piece.length
  }
  return { fileBytes, sha256: hash.digest('hex') }
}
