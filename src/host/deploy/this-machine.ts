import { readFile, stat } from 'node:fs/promises'
import { machine, totalmem } from 'node:os'
import { join } from 'node:path'
import { architectureNamed } from '../../base/architecture.ts'
import type { ModelName } from './server-models.ts'

/** A machine, as far as an image can be unfit for it. */
export interface Machine {
  /** By what its makers call it: the machine, its main board. The first is shown. Empty where the firmware says nothing. */
  readonly models: readonly ModelName[]
  readonly architecture: string
  /** How it was started just now. */
  readonly firmware: 'bios' | 'uefi'
  /** What the kernel has; some of it is kept by firmware and kernel. */
  readonly memoryBytes: number
}

/**
 * The machine that this runs on, by DMI (Linux, Documentation/ABI/testing/sysfs-class-dmi… `sys/class/dmi/id`).
 * @param sys `/sys`; a test has a folder of its own
 */
export async function thisMachine(sys: string): Promise<Machine> {
  const dmi = async (name: string) => (await readFile(join(sys, 'class/dmi/id', name), 'utf8').catch(() => '')).trim()
  const [maker, boardMaker] = await Promise.all([dmi('sys_vendor'), dmi('board_vendor')])
  // some makers write an order number as the product and what people call it as its version or family
  const products = await Promise.all(['product_name', 'product_version', 'product_family'].map(dmi))
  const board = await dmi('board_name')
  const models = [...products.map((product) => ({ maker, product })), { maker: boardMaker, product: board }]
  const isUefi = await stat(join(sys, 'firmware/efi')).catch(() => undefined)
  return {
    models: models.filter(({ product }) => product !== ''),
    architecture: architectureNamed(machine()),
    firmware: isUefi ? 'uefi' : 'bios',
    memoryBytes: totalmem(),
  }
}
