import { type Look, refusal, type Signature } from './recognition.ts'

/** ECMA-119: volume descriptors of 2,048 bytes from sector 16 on. */
const DESCRIPTORS_OFFSET = 32768
const DESCRIPTOR_BYTES = 2048
const DESCRIPTORS = 16 // looked at, all of them in the head
const PRIMARY = 1
const IDS = ['CD001', 'CDW02', 'BEA01', 'NSR02', 'NSR03', 'BOOT2', 'TEA01']
const LOGICAL_BLOCK_SIZES = [512, 1024, 2048]

const descriptors = Array.from({ length: DESCRIPTORS }, (_, index) => DESCRIPTORS_OFFSET + index * DESCRIPTOR_BYTES)

export const opticalSignatures: readonly Signature[] = [
  {
    name: 'iso',
    kind: 'disk',
    diskFormat: 'iso',
    /** Also where only a later descriptor is there: a pure UDF disc, or an ISO whose first descriptors were damaged. */
    find: (look) => descriptors.find((offset) => IDS.some((id) => look.has(offset + 1, id))),
    inspect: async (look) => checkPrimary(look),
  },
]

function checkPrimary(look: Look) {
  const primary = descriptors.find((offset) => look.byte(offset) === PRIMARY && look.has(offset + 1, 'CD001'))
  if (primary === undefined) return {}
  const blockBytes = look.u16le(primary + 128)
  if (!LOGICAL_BLOCK_SIZES.includes(blockBytes)) {
    throw refusal('iso', 'malformed', `the logical block size is ${blockBytes}; it must be 512, 1024 or 2048`, { blockBytes })
  }
  const volumeBytes = look.u32le(primary + 80) * blockBytes
  return volumeBytes > look.fileBytes
    ? { note: `iso: the volume has ${volumeBytes} bytes, the file only ${look.fileBytes}; is the upload complete?` }
    : {}
}
