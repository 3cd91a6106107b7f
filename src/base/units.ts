export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB
export const TiB = 1024 * GiB

/** `1536` → `1.5 KiB`: for people; programs get the number. */
export function formatBytes(bytes: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let step = 0
  while (value >= 1024 && step < names.length - 1) {
    value /= 1024
    step += 1
  }
  return step === 0 ? `${bytes} B` : `${value.toFixed(value < 10 ? 1 : 0)} ${names[step]}`
}
