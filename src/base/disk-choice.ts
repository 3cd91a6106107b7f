import { ServiceError } from './errors.ts'

/**
 * Which disk of a machine is meant. Names of devices go by the order in which a kernel finds them, and may be others at the next start;
 * what a disk says of itself stays.
 */
export type DiskChoice =
  | { readonly by: 'path'; readonly path: string }
  | { readonly by: 'serial' | 'wwn'; readonly value: string }
  /** Whole GiB, rounded down, as Ironic's root device hint has it. */
  | { readonly by: 'size'; readonly gib: number }
  | { readonly by: 'largest' | 'smallest' }

/** A regular expression: `/dev/…`, `serial=…`, `wwn=…`, `size=…`, `largest`, `smallest`. */
export const DISK_CHOICE =
  '^(/dev/[A-Za-z0-9/_.:+-]{1,200}|(serial|wwn)=[!-~][ -~]{0,100}|size=[1-9][0-9]{0,8}(GiB)?|largest|smallest)$'

/** @throws ServiceError `invalid-request`, saying what there is to choose by */
export function parseDiskChoice(text: string): DiskChoice {
  if (!new RegExp(DISK_CHOICE).test(text)) {
    throw new ServiceError(
      'invalid-request',
      'a disk is named by its path (/dev/sda), serial=NUMBER, wwn=NUMBER, size=GIB, largest, or smallest',
    )
  }
  if (text.startsWith('/')) return { by: 'path', path: text }
  if (text === 'largest' || text === 'smallest') return { by: text }
  const [by, value] = [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]
  if (by === 'size') return { by, gib: Number.parseInt(value, 10) }
  return { by: by === 'wwn' ? 'wwn' : 'serial', value: value.trim() }
}
