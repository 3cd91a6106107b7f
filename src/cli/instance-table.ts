import type { Instance } from './client/compute-client.ts'
import type { Column, Tone } from './output.ts'

const words: Readonly<Record<string, string>> = {
  ACTIVE: 'running',
  BUILD: 'starting',
  SHUTOFF: 'off',
  REBOOT: 'restarting',
  HARD_REBOOT: 'restarting',
}
const tones: Readonly<Record<string, Tone>> = { ACTIVE: 'good', ERROR: 'bad', SHUTOFF: 'dim', PAUSED: 'dim' }

/** `running`, or what is being done to it: `powering-off`. */
export function stateOf({ status, task }: Pick<Instance, 'status' | 'task'>): string {
  const word = words[status] ?? status.toLowerCase()
  return task === null || word === 'starting' || word === 'restarting' ? word : task
}

/** `127.0.0.1:31022→22` */
export const portsOf = ({ forwards }: Instance): string =>
  forwards
    .map(({ protocol, hostAddress, hostPort, guestPort }) => {
      const suffix = protocol === 'tcp' ? '' : `/${protocol}`
      return `${hostAddress}:${hostPort}→${guestPort}${suffix}`
    })
    .join(' ')

/** `5 s`, `3 min`, `7 h`, `12 d`: the largest unit. */
export function ageOf(createdAt: string, now = Date.now()): string {
  const seconds = Math.max(0, Math.floor((now - Date.parse(createdAt)) / 1000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  return seconds < 86_400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`
}

/** Of an id, what tells it from the others in a list. */
export const SHORT_ID = 8

/** @param imageNames by id; one that is deleted has none any more */
export const instanceColumns = (imageNames: ReadonlyMap<string, string>): readonly Column<Instance>[] => [
  { title: 'NAME', value: ({ name }) => name },
  { title: 'ID', value: ({ id }) => id.slice(0, SHORT_ID) },
  { title: 'IMAGE', value: ({ imageId }) => (imageId === null ? null : (imageNames.get(imageId) ?? imageId.slice(0, SHORT_ID))) },
  { title: 'FLAVOR', value: ({ flavor }) => flavor.name },
  { title: 'STATE', value: stateOf, tone: ({ status }) => tones[status] ?? 'plain' },
  { title: 'PORTS', value: (instance) => portsOf(instance) || null },
  { title: 'AGE', value: ({ createdAt }) => ageOf(createdAt) },
]
