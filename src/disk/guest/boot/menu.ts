/** Something that a boot loader can start, as its configuration says. Strings are the guest's: to be shown inert. */
export interface MenuEntry {
  readonly title: string
  /** Its id, and those of the menus that it is in, as `1>2` of GRUB; empty: it has none. */
  readonly id: string
  /** The kernel, or the EFI program, by its path as the configuration has it; null where it starts none that can be told. */
  readonly kernel: string | null
  readonly kind: 'linux' | 'efi' | 'chain' | 'other'
  readonly arguments: string
  readonly initramfs: readonly string[]
  /** Where the paths begin, where it says so: `UUID=…`, `LABEL=…`, `(hd0,gpt2)`; null: where the configuration is. */
  readonly root: string | null
  /** What is known only when it starts, a sentence each. */
  readonly notes: readonly string[]
}

export interface BootMenu {
  readonly entries: readonly MenuEntry[]
  /** What is started when nobody chooses; null where there is none, or it cannot be told. */
  readonly chosen: MenuEntry | null
  readonly notes: readonly string[]
  /** Devices that the loader itself shows its menu on, as `serial`; empty: it does not say. */
  readonly consoles: readonly string[]
}
