import { type ExecFileOptions, execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ProcessUser } from './process.ts'

/**
 * A boot sector that does what the start of every kernel does: real mode, page tables, long mode, a flush of the translations,
 * CPUID, a model-specific register, and a million turns of arithmetic; then it ends QEMU by its exit device. It stands for more
 * than /dev/kvm: there are hosts, themselves machines, on which that opens and processors are made, but no kernel gets as far as
 * this in a minute. Assembled by GNU as from:
 *
 *     cli; cld; xorw %ax,%ax; movw %ax,%ds; movw %ax,%es; movw %ax,%ss; movw $0x7c00,%sp
 *     movw $0x1000,%di; movw $0x1800,%cx; rep stosw            # page tables, cleared
 *     movw $0x2003,0x1000; movw $0x3003,0x2000; movw $0x83,0x3000   # the first 2 MiB, as one page
 *     movl $0x20,%eax; movl %eax,%cr4; movl $0x1000,%eax; movl %eax,%cr3
 *     movl $0xc0000080,%ecx; rdmsr; orl $0x100,%eax; wrmsr     # EFER.LME
 *     movl $0x80000011,%eax; lgdtl gdtr; movl %eax,%cr0; ljmpw $8,$long
 *     long: movl $16,%eax; movl %eax,%ds; movl %eax,%ss; movq %cr3,%rax; movq %rax,%cr3; invlpg (0)
 *     xorl %eax,%eax; cpuid; movl $0xc0000080,%ecx; rdmsr; btl $10,%eax; jnc bad    # EFER.LMA
 *     movl $1000000,%ecx; movabsq $0x9e3779b97f4a7c15,%rdx; movl $1,%eax
 *     1: imulq %rdx,%rax; rolq $7,%rax; addq %rcx,%rax; loop 1b
 *     movb $0x2a,%al; jmp out; bad: movb $0x11,%al; out: outb %al,$0xf4; 2: hlt; jmp 2b
 *     gdt: 0, 0x00209a0000000000, 0x0000920000000000; gdtr: 23, gdt
 */
const BOOT_SECTOR = Buffer.from(
  'fafc31c08ed88ec08ed0bc007cbf0010b90018f3abc70600100320c70600200330c7060030830066b8200000000f22e066b8' +
    '001000000f22d866b9800000c00f32660d000100000f3066b811000080660f0116d07c0f22c0ea5d7c0800b8100000008ed8' +
    '8ed00f20d80f22d80f013c250000000031c00fa2b9800000c00f320fbae00a7325b940420f0048ba157c4a7fb979379eb801' +
    '000000480fafc248c1c0074801c8e2f3b02aeb02b011e6f4f4ebfd0f1f8000000000000000000000000000000000009a2000' +
    '00000000009200001700b87c',
  'hex',
)
const SECTOR_BYTES = 512
const DISK_BYTES = 1024 * 1024 // SeaBIOS reads no disk that is smaller than a cylinder
const PASSED = (0x2a << 1) | 1 // QEMU's isa-debug-exit

/** Emulation takes half a second. Where it fails, the service starts this much later. */
const DEADLINE_MS = 20_000
/** What kvm may take longer than emulation, on a host where much else starts as well: on hardware it is faster. */
const SLOWER_BY_MS = 1000

export type Accelerator = 'kvm' | 'tcg'

/** Best first: those with which machines of the PC kind really run, as the user that they will run as. */
export async function workingAccelerators(program: string, user?: ProcessUser): Promise<readonly Accelerator[]> {
  const begun = performance.now()
  const tooSlow = new AbortController()
  const kvm = canRun(program, 'kvm', user, tooSlow.signal)
  const tcg = await canRun(program, 'tcg', user)
  // both meet the same load of the host, so emulation is the clock: what is twice as slow accelerates nothing
  const patience = setTimeout(() => tooSlow.abort(), tcg ? performance.now() - begun + SLOWER_BY_MS : DEADLINE_MS)
  const isFast = await kvm
  clearTimeout(patience)
  return (['kvm', 'tcg'] as const).filter((accelerator) => (accelerator === 'kvm' ? isFast : tcg))
}

export async function canRun(
  program: string,
  accelerator: Accelerator,
  user?: ProcessUser,
  signal?: AbortSignal,
): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-trial-'))
  try {
    const disk = Buffer.alloc(DISK_BYTES)
    BOOT_SECTOR.copy(disk)
    disk.writeUInt16LE(0xaa55, SECTOR_BYTES - 2)
    await writeFile(join(folder, 'disk'), disk, { mode: 0o444 })
    const args = ['-machine', `pc,accel=${accelerator}`, '-cpu', accelerator === 'kvm' ? 'host' : 'max', '-m', '16']
    args.push('-nodefaults', '-no-user-config', '-display', 'none')
    args.push('-blockdev', '{"driver":"raw","node-name":"disk","read-only":true,"file":{"driver":"file","filename":"disk"}}')
    args.push('-device', '{"driver":"virtio-blk-pci","drive":"disk","bootindex":0}')
    args.push('-device', '{"driver":"isa-debug-exit","iobase":244,"iosize":1}')
    return (await exitStatus(program, args, { cwd: folder, ...user, ...(signal ? { signal } : {}) })) === PASSED
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const exitStatus = (program: string, args: readonly string[], options: ExecFileOptions): Promise<unknown> =>
  new Promise((done) => {
    execFile(program, args, { timeout: DEADLINE_MS, killSignal: 'SIGKILL', ...options }, (error) => done(error?.code ?? 0))
  })
