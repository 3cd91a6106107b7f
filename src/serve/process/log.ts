import { join } from 'node:path'
import pino, { type Logger } from 'pino'
import type { Settings } from '../../settings/settings.ts'

/** In a terminal the log goes to a file, for the terminal is for people; elsewhere (systemd, containers) to stderr. */
export function openLog(
  settings: Pick<Settings, 'logLevel'>,
  data: string,
): { readonly log: Logger; readonly file: string | null } {
  const file = process.stderr.isTTY ? join(data, 'imprint.log') : null
  const destination = pino.destination(file ? { dest: file, sync: false, mode: 0o600 } : { dest: 2, sync: false })
  return { log: pino({ level: settings.logLevel, base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination), file }
}
