/** Machines of ELF executables, by e_machine, in the names of Glance's `architecture` property. Source: System V ABI, "Machine"; linux/elf-em.h. */
const machines: Readonly<Record<number, string>> = {
  3: 'i686',
  8: 'mips',
  20: 'ppc',
  21: 'ppc64',
  22: 's390x',
  40: 'armv7l',
  62: 'x86_64',
  183: 'aarch64',
  243: 'riscv64',
  258: 'loongarch64',
}
const LITTLE_ENDIAN = 1

export const ELF_HEAD_BYTES = 20

/** Of an executable, by its first 20 bytes; null where it is none, or of an unknown machine. Mips and PowerPC have little-endian kinds of their own. */
export function elfArchitecture(head: Uint8Array): string | null {
  if (head.length < ELF_HEAD_BYTES || Buffer.from(head.subarray(0, 4)).toString('latin1') !== '\x7fELF') return null
  const isLittle = head[5] === LITTLE_ENDIAN
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength)
  const machine = machines[view.getUint16(18, isLittle)]
  if (machine === 'ppc64' && isLittle) return 'ppc64le'
  if (machine === 'mips') return `mips${head[4] === 2 ? '64' : ''}${isLittle ? 'el' : ''}`
  return machine ?? null
}
