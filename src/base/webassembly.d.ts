/** The part of the WebAssembly JavaScript interface that we use; Node has it, its type package does not. */
declare namespace WebAssembly {
  /** Whether this machine could run it. */
  function validate(bytes: Uint8Array<ArrayBuffer>): boolean
  class Memory {
    constructor(descriptor: { readonly initial: number; readonly maximum?: number; readonly shared?: boolean })
    /** A SharedArrayBuffer where it is shared. */
    readonly buffer: ArrayBuffer | SharedArrayBuffer
  }
  class Module {
    constructor(bytes: Uint8Array<ArrayBuffer>)
  }
  class Instance {
    constructor(module: Module, imports?: Readonly<Record<string, Readonly<Record<string, unknown>>>>)
    readonly exports: Readonly<Record<string, unknown>>
  }
}
