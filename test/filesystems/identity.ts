import { execFileSync } from 'node:child_process'

/** What blkid says a volume is; what it does not say is empty. */
export function identityOf(path: string): { type: string; label: string; uuid: string } {
  const said = execFileSync('/usr/sbin/blkid', ['-p', '-o', 'export', path], { encoding: 'utf8' })
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(said)?.[1]?.replace(/\\(.)/g, '$1') ?? ''
  return { type: value('TYPE'), label: value('LABEL'), uuid: value('UUID') }
}
