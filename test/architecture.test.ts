/** The layers of ARCHITECTURE.md as a test: each folder lists all that its production code may import. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { test } from 'node:test'

const mayImport: Record<string, readonly string[]> = {
  base: [],
  settings: ['base'],
  'disk/block': ['base'],
  'disk/filters': ['base', 'disk/block'],
  'disk/packed': ['base'],
  'disk/containers/compression': ['base', 'disk/packed'],
  'disk/containers': ['base', 'disk/block', 'disk/packed', 'disk/containers/compression'],
  'disk/formats': ['base', 'disk/block'],
  'disk/guest': ['base', 'disk/block', 'disk/filters', 'disk/packed', 'disk/containers/compression'],
  'store/blobs': ['base'],
  'store/content': ['base'],
  'store/chunks/workers': ['base', 'disk/block', 'store/content'],
  'store/chunks': ['base', 'disk/block', 'store/blobs', 'store/chunks/workers', 'store/content'],
  'store/catalog': ['base', 'store/blobs'],
  'store/scratch': ['base', 'disk/block', 'disk/filters'],
  identity: ['base', 'store/catalog'],
  images: [
    'base',
    'disk/block',
    'disk/containers',
    'disk/filters',
    'disk/formats',
    'disk/guest',
    'store/blobs',
    'store/catalog',
    'store/chunks',
    'store/content',
    'store/scratch',
  ],
  'instances/seed': ['base'],
  'instances/hypervisor': ['base', 'disk/block', 'disk/formats', 'instances/seed'],
  instances: ['base', 'disk/block', 'instances/hypervisor', 'store/catalog'],
  'serve/websocket': ['base'],
  volumes: ['base', 'store/catalog'],
  'serve/http': [
    'base',
    'serve/websocket',
    'settings',
    'disk/block',
    'identity',
    'images',
    'instances',
    'volumes',
    'store/catalog',
    'store/chunks',
    'store/content',
  ],
  'serve/nbd': ['base', 'disk/block'],
  'serve/process': ['base', 'settings', 'serve/nbd'],
  'cli/client': ['base', 'store/content'],
  host: [
    'base',
    'disk/block',
    'disk/filters',
    'disk/formats',
    'disk/guest',
    'instances/seed',
    'store/content',
    'store/chunks/workers',
    'cli/client',
  ],
  cli: [
    'base',
    'settings',
    'disk/block',
    'disk/containers',
    'disk/filters',
    'disk/formats',
    'disk/guest',
    'cli/client',
    'store/content',
    'host',
    'serve/nbd',
    'serve/websocket',
  ],
}
/** Folders whose subfolders implement one interface and must not know each other. */
const families = ['disk/formats', 'store/blobs', 'store/catalog', 'store/chunks/index', 'serve/http', 'instances/hypervisor']
/** Of these, nobody but the wiring may name a member: everyone else takes the interface. */
const ports = ['store/blobs', 'store/catalog', 'instances/hypervisor']

/** What puts it all together may import everything, and nobody imports it. */
const wiring = ['main.ts', 'wiring.ts', 'wiring-machines.ts', 'wiring-agent.ts', 'wiring-room.ts']

const src = resolve(import.meta.dirname, '../src')
const layers = Object.keys(mayImport).sort((a, b) => b.length - a.length)
const layerOf = (path: string) => layers.find((layer) => path.startsWith(`${layer}/`))
/** `store/blobs/fs/x.ts` → `store/blobs/fs`; undefined for a file at the family's root. */
const memberOf = (path: string, among: readonly string[]) => {
  const family = among.find((name) => path.startsWith(`${name}/`))
  const [member, ...rest] = family ? path.slice(family.length + 1).split('/') : []
  return rest.length > 0 ? `${family}/${member}` : undefined
}

const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter(
  (name) => name.endsWith('.ts') && !/\.(test|suite)\.ts$/.test(name) && !wiring.includes(name),
)

for (const file of files) {
  test(`imports of ${file}`, () => {
    const from = layerOf(file)
    assert.ok(from, `${file} lies in no layer: give its folder a row`)
    for (const [, target] of readFileSync(join(src, file), 'utf8').matchAll(/\b(?:from|import)\s*\(?\s*['"](\.[^'"]+)['"]/g)) {
      const path = relative(src, resolve(src, dirname(file), target!))
      const to = layerOf(path)
      assert.ok(to && (to === from || mayImport[from]!.includes(to)), `${from} may not import ${path}`)
      const [mine, theirs] = [memberOf(file, families), memberOf(path, families)]
      assert.ok(!mine || !theirs || mine === theirs, `${mine} and ${theirs} are strangers`)
      assert.ok(!memberOf(path, ports) || mine === theirs, `only the wiring may name the adapter ${path}`)
    }
  })
}
