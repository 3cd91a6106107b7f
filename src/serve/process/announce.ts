export interface Announcement {
  readonly version: string
  readonly address: string
  readonly dataFolder: string
  readonly logFile: string | null
  /** Made up for the first administrator; null on every later start. */
  readonly firstPassword: string | null
}

/** What a person reads once the service answers: where it is, and what to type next. */
export function announcement({ version, address, dataFolder, logFile, firstPassword }: Announcement): string {
  const lines = [`Imprint ${version} answers at ${address}`, `  data   ${dataFolder}`]
  if (logFile) lines.push(`  log    ${logFile}`)
  if (firstPassword !== null) {
    lines.push(
      '',
      '  The first administrator was made. This password is shown once; only its hash is kept:',
      '    user      admin',
      `    password  ${firstPassword}`,
    )
  }
  lines.push('', '  Next, in another terminal:', `    bin/imprint login ${address}`, '')
  return `${lines.join('\n')}\n`
}
