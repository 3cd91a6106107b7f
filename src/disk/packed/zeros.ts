/** What is given for zeros, at most 1 MiB at a time: it is never written to, nor given away. */
export const ZEROS = new Uint8Array(1024 * 1024)
