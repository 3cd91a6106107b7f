import type { Row } from './bench-case.ts'

/** How many times better Imprint is: smaller is better but for rates. */
export function ratioOf({ unit, imprint, peer }: Row): number {
  return unit === '/s' ? imprint.median / peer.median : peer.median / imprint.median
}

/** Whether the row reaches what is asked for; null where nothing is. */
export function reached(row: Row): boolean | null {
  if (row.must === undefined && row.atMost === undefined) return null
  return (row.must === undefined || ratioOf(row) >= row.must) && (row.atMost === undefined || row.imprint.median <= row.atMost)
}

export const heading = line('what', 'Imprint', 'peer', 'ratio', 'must', 'aim', '')

export function tableLine(row: Row): string {
  const value = (number: number) => `${number >= 1000 ? Math.round(number) : number.toPrecision(3)}`
  const shown = (median: number) => `${value(median)} ${row.unit}`
  const must = [row.must && `≥ ${row.must}×`, row.atMost && `≤ ${row.atMost} ${row.unit}`].filter(Boolean).join(', ')
  const verdict = { true: 'reached', false: 'MISSED', null: '' }[String(reached(row)) as 'true' | 'false' | 'null']
  const peer = `${row.peer.name} ${shown(row.peer.median)}`
  return line(row.what, shown(row.imprint.median), peer, `${value(ratioOf(row))}×`, must, row.aim ? `${row.aim}×` : '', verdict)
}

function line(
  ...[what, ours, theirs, ratio, must, aim, verdict]: readonly [string, string, string, string, string, string, string]
): string {
  return `${what.padEnd(62)} ${ours.padStart(12)}  ${theirs.padStart(20)}  ${ratio.padStart(8)}  ${must.padStart(12)}  ${aim.padStart(5)}  ${verdict}`
}
