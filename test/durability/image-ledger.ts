import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { countsOf, type ImageRequests, type ShownImage } from './image-requests.ts'

/** How an image stands, as far as a client was told. */
export type Standing =
  | { readonly is: 'absent' }
  | { readonly is: 'queued' }
  | { readonly is: 'staged'; readonly bytes: Buffer }
  | { readonly is: 'active'; readonly bytes: Buffer }

interface Entry {
  certain: Standing
  /** What requests that got no answer may have made of it. */
  possible: readonly Standing[]
  names: readonly (string | null)[]
}

export const absent: Standing = { is: 'absent' }
export const queued: Standing = { is: 'queued' }

const IMPORTS_END_WITHIN_MS = 60_000

/** What was acknowledged to a client, and what it has asked for without an answer: the truth that the service is held to. */
export class ImageLedger {
  readonly #entries = new Map<string, Entry>()

  get ids(): readonly string[] {
    return [...this.#entries.keys()]
  }

  /** As it stands now. */
  copy(): ImageLedger {
    const copy = new ImageLedger()
    for (const [id, entry] of this.#entries) copy.#entries.set(id, { ...entry })
    return copy
  }

  activeIds(): readonly string[] {
    return this.ids.filter((id) => this.#entries.get(id)?.certain.is === 'active')
  }

  bytesOf(id: string): Buffer | undefined {
    const standing = this.#entries.get(id)?.certain
    return standing && 'bytes' in standing ? standing.bytes : undefined
  }

  /** Notes the request, makes it, and notes the answer; `between` are states on the way that a death may leave. */
  async make(id: string, becomes: Standing, request: () => Promise<unknown>, between: readonly Standing[] = []): Promise<void> {
    const entry = this.#entryOf(id)
    entry.possible = [...between, becomes]
    await request()
    entry.certain = becomes
    entry.possible = []
  }

  /** The name that an image is about to be created with: until a rename no other may be shown. */
  name(id: string, name: string): void {
    this.#entryOf(id).names = [name]
  }

  async rename(id: string, name: string, request: () => Promise<unknown>): Promise<void> {
    const entry = this.#entryOf(id)
    entry.names = [...entry.names, name]
    await request()
    entry.names = [name]
  }

  /** An image that the service is known to have although nobody was told: a copy of what was sent before. */
  note(id: string, standing: Standing): void {
    this.#entryOf(id).certain = standing
  }

  /**
   * Everything acknowledged is there in equal bytes, nothing else is half there, the quota is exact. What got no answer is
   * settled by this one way or the other.
   */
  async assertKept(images: ImageRequests): Promise<void> {
    for (const [id, entry] of this.#entries) {
      const shown = await settled(images, id)
      const found = await this.#standingOf(images, shown, [entry.certain, ...entry.possible])
      entry.certain = found
      entry.possible = []
      if (!shown) continue
      if (entry.names.length > 0) assert.ok(entry.names.includes(shown.name), `the name of ${id} is one that was given`)
      entry.names = [shown.name]
    }
    const unknown = (await images.list()).filter(({ id }) => !this.#entries.has(id))
    assert.deepEqual(unknown, [], 'there is no image that nobody asked for')
    const standing = [...this.#entries.values()].map(({ certain }) => certain)
    const bytesOf = (is: 'active' | 'staged') => standing.reduce((sum, one) => sum + (one.is === is ? one.bytes.length : 0), 0)
    const { images: count, bytes, staged } = await images.usage()
    assert.deepEqual(
      { count, bytes, staged },
      { count: standing.filter(({ is }) => is !== 'absent').length, bytes: bytesOf('active'), staged: bytesOf('staged') },
      'the quota counts what is there',
    )
  }

  /** After a collection the store counts what a fresh one would that was given the same images. */
  async assertNothingLeaks(images: ImageRequests): Promise<void> {
    await images.job('collect')
    const { chunks, manifests } = await images.stats()
    const files = [...this.#entries.values()].flatMap(({ certain }) => ('bytes' in certain ? [certain.bytes] : []))
    assert.deepEqual({ chunks, manifests }, countsOf(files), 'chunks and manifests are those of the images')
    const { faults } = await images.job('check', { readData: true })
    assert.deepEqual(faults, [])
  }

  async deleteAll(images: ImageRequests): Promise<void> {
    for (const [id, { certain }] of this.#entries) {
      if (certain.is !== 'absent') await this.make(id, absent, () => images.delete(id))
    }
  }

  #entryOf(id: string): Entry {
    const entry = this.#entries.get(id) ?? { certain: absent, possible: [], names: [] }
    this.#entries.set(id, entry)
    return entry
  }

  async #standingOf(images: ImageRequests, shown: ShownImage | undefined, allowed: readonly Standing[]): Promise<Standing> {
    const is = standingOfStatus(shown)
    const among = allowed.filter((standing) => standing.is === is)
    const told = `image ${shown?.id} is ${shown?.status ?? 'absent'}, and may be ${allowed.map((one) => one.is).join(' or ')}`
    assert.ok(among.length > 0, told)
    if (is === 'queued' && allowed.length > 1 && allowed.some((one) => one.is === 'active' || one.is === 'staged')) {
      // it was on its way when the service died; whether a byte had come by then decides if there is a reason to give
      assert.notEqual(shown?.failure, '', 'a reason is a sentence')
    }
    if (is !== 'active') return among[0]!
    const bytes = await images.fetch(shown!.id)
    const same = among.find((one) => 'bytes' in one && Buffer.compare(one.bytes, bytes) === 0)
    assert.ok(same, `image ${shown!.id} has the bytes that were sent`)
    return same
  }
}

function standingOfStatus(shown: ShownImage | undefined): Standing['is'] | undefined {
  if (!shown) return 'absent'
  return ({ queued: 'queued', uploading: 'staged', active: 'active' } as const)[shown.status]
}

/** An import that was under way is taken up again: it ends by itself. */
async function settled(images: ImageRequests, id: string): Promise<ShownImage | undefined> {
  for (const deadline = Date.now() + IMPORTS_END_WITHIN_MS; ; await pause(50)) {
    const shown = await images.show(id)
    if (shown?.status !== 'importing' || Date.now() > deadline) return shown
  }
}
