/** The image API as a benchmark uses it: the bytes go by curl, so that this process is not what is measured. */
import { must } from '../../test/peers/command.ts'

export interface ImageTarget {
  /** Without `/v2`. */
  readonly imageUrl: string
  readonly token: string
}

export async function createImage(
  { imageUrl, token }: ImageTarget,
  attributes: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const response = await fetch(`${imageUrl}/v2/images`, {
    method: 'POST',
    headers: { 'x-auth-token': token, 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'bench', disk_format: 'raw', container_format: 'bare', ...attributes }),
  })
  if (response.status !== 201) throw new Error(`create: ${response.status} ${await response.text()}`)
  return ((await response.json()) as { id: string }).id
}

export async function deleteImage({ imageUrl, token }: ImageTarget, id: string): Promise<void> {
  const response = await fetch(`${imageUrl}/v2/images/${id}`, { method: 'DELETE', headers: { 'x-auth-token': token } })
  if (response.status !== 204) throw new Error(`delete: ${response.status} ${await response.text()}`)
}

/** @returns seconds */
export async function putFile({ imageUrl, token }: ImageTarget, id: string, path: string): Promise<number> {
  const headers = ['-H', `X-Auth-Token: ${token}`, '-H', 'Content-Type: application/octet-stream', '-H', 'Expect:']
  return curl(['-T', path, ...headers, `${imageUrl}/v2/images/${id}/file`], '204', 'time_total')
}

/** @returns seconds until the last byte, or the first */
export async function getFile(
  { imageUrl, token }: ImageTarget,
  id: string,
  until: 'time_total' | 'time_starttransfer' = 'time_total',
): Promise<number> {
  return curl(['-H', `X-Auth-Token: ${token}`, `${imageUrl}/v2/images/${id}/file`], '200', until)
}

async function curl(args: readonly string[], status: string, timing: string): Promise<number> {
  const written = await must(['curl', '-s', '-S', '-o', '/dev/null', '-w', `%{http_code} %{${timing}}`, ...args])
  const [code, seconds] = written.split(' ')
  if (code !== status) throw new Error(`curl ${args.at(-1)}: ${code} instead of ${status}`)
  return Number(seconds)
}
