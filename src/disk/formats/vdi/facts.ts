import type { BlockSource } from '../../block/block-source.ts'
import type { Fact } from '../format-driver.ts'
import { header, parseHeader } from './header.ts'

/** @throws ServiceError `invalid-image` | `unsupported` */
export async function factsOf(file: BlockSource): Promise<readonly Fact[]> {
  const bytes = await file.read(0, Math.min(file.size, header.bytes))
  const { kind, blockBytes, blocks, blocksAllocated } = parseHeader(bytes, file.size)
  const { createId, modifyId, linkId, comment } = header.parse(bytes)
  const [text = ''] = new TextDecoder().decode(comment).split('\0', 1)
  return [
    { name: 'type', value: kind },
    { name: 'block size', value: blockBytes, unit: 'bytes' },
    { name: 'blocks', value: blocks },
    { name: 'blocks in the file', value: blocksAllocated },
    { name: 'uuid', value: uuidOf(createId) },
    { name: 'uuid of the last change', value: uuidOf(modifyId) },
    ...(kind === 'differencing' ? [{ name: 'uuid of the parent', value: uuidOf(linkId) }] : []),
    ...(text === '' ? [] : [{ name: 'comment', value: text }]),
  ]
}

/** As VirtualBox prints it: the first three fields are little-endian. */
function uuidOf(id: Uint8Array): string {
  const hex = (...at: readonly number[]) => at.map((index) => id[index]!.toString(16).padStart(2, '0')).join('')
  return `${hex(3, 2, 1, 0)}-${hex(5, 4)}-${hex(7, 6)}-${hex(8, 9)}-${hex(10, 11, 12, 13, 14, 15)}`
}
