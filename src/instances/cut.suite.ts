import type { InstanceWorld } from './instance-world.suite.ts'
import type { MemoryImages } from './memory-images.suite.ts'
import type { MachineHost } from './ports.ts'

/** A stop in the middle of a call to an adapter. `before`: the call does nothing; `after`: it does all. Then it never ends. */
export type Cut = 'before' | 'after'
export type CutPort = 'images' | 'snapshots' | 'hypervisor'

/**
 * A service on the world as it is, in which that call never ends. The world opened again is the next start.
 * @param nth the how manyth call of the method
 * @returns `reached` settles when it was called
 */
export async function openCut(world: InstanceWorld, port: CutPort, method: string, cut: Cut, nth = 1) {
  if (port !== 'hypervisor') {
    const { dead, reached } = cutAt(world.images, method as keyof MemoryImages, cut, nth)
    await world.reopen({ [port]: dead })
    return { reached }
  }
  let found: ReturnType<typeof cutAt<MachineHost>> | undefined
  await world.reopen({
    hypervisor: (real) => {
      found = cutAt(real, method as keyof MachineHost, cut, nth)
      return found.dead
    },
  })
  return { reached: found!.reached }
}

function cutAt<T extends object>(real: T, method: keyof T, cut: Cut, nth: number) {
  const reached = Promise.withResolvers<void>()
  let calls = 0
  const dead = new Proxy(real, {
    get(target, name) {
      const value = Reflect.get(target, name)
      if (typeof value !== 'function') return value
      if (name !== method) return value.bind(target)
      return async (...args: unknown[]) => {
        calls += 1
        if (calls < nth) return value.apply(target, args)
        if (cut === 'after') await value.apply(target, args)
        reached.resolve()
        return new Promise(() => {})
      }
    },
  })
  return { dead, reached: reached.promise }
}
