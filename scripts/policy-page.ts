/** Prints the policy table of images as docs/policy.md: `node scripts/policy-page.ts`. A test holds the page to the table. */
import { writeFileSync } from 'node:fs'
import type { Rank } from '../src/base/rank.ts'
import { decide, type ImageVerb, imagePolicy, type Standing, servicePolicy } from '../src/images/policy.ts'
import type { ImageStatus } from '../src/store/catalog/catalog.ts'

const states = [
  'queued',
  'saving',
  'uploading',
  'importing',
  'active',
  'deactivated',
  'killed',
] as const satisfies readonly ImageStatus[]
const columns: readonly { readonly title: string; readonly rank: Rank; readonly standing: Standing }[] = [
  { title: 'administrator', rank: 'admin', standing: 'stranger' },
  { title: 'owner, member', rank: 'member', standing: 'owner' },
  { title: 'owner, reader', rank: 'reader', standing: 'owner' },
  { title: 'shared with, member', rank: 'member', standing: 'member' },
  { title: 'shared with, reader', rank: 'reader', standing: 'member' },
  { title: 'public or community, member', rank: 'member', standing: 'audience' },
  { title: 'public or community, reader', rank: 'reader', standing: 'audience' },
  { title: 'anybody else', rank: 'member', standing: 'stranger' },
]

/** What a column's caller gets over all states: one verdict, or one with the states that differ. */
function cell(verb: ImageVerb, { rank, standing }: (typeof columns)[number]): string {
  const verdicts = new Map<string, string[]>()
  for (const status of states) {
    const visibility = standing === 'audience' ? 'public' : 'shared'
    const verdict = decide(verb, rank, standing, { visibility, status })
    verdicts.set(verdict, [...(verdicts.get(verdict) ?? []), status])
  }
  if (verdicts.size === 1) return [...verdicts.keys()].join('')
  return [...verdicts]
    .sort(([, a], [, b]) => a.length - b.length)
    .map(([verdict, when], at) => (at === 0 ? `${verdict}: ${when.join(', ')}` : `else ${verdict}`))
    .join('; ')
}

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`

export function policyPage(): string {
  const verbs = Object.keys(imagePolicy) as ImageVerb[]
  return `# Who may do what to an image

Printed from the table in \`src/images/policy.ts\` by \`scripts/policy-page.ts\`; a test holds this page to it, and the table to a
model of its own. Every use case asks the table and nothing else.

*allow* it is done · *deny* 403, the caller knows the image and may not · *conflict* 409, not while the image is in this state ·
*hide* 404, to this caller the image does not exist. The roles are those of the caller's token: an administrator is \`admin\`
anywhere; \`member\` includes \`reader\`; who has none of them sees nothing. An image is *shared with* a project as soon as it is
among the members, whatever it answered; only then does the membership count, and only while the image's visibility is
\`shared\`. A deleted image is hidden from everybody, administrators included. Images that nobody owns have no owner: they are
seen by administrators, and by all where they are public or for the community.

${row(['verb', ...columns.map(({ title }) => title)])}
${row(['---', ...columns.map(() => '---')])}
${verbs.map((verb) => row([`\`${verb}\``, ...columns.map((column) => cell(verb, column))])).join('\n')}

Members belong to shared images: ${verbs
    .filter((verb) => 'onlyShared' in imagePolicy[verb])
    .map((verb) => `\`${verb}\``)
    .join(', ')} are denied on all others.

## What concerns no image that is there

| verb | least role |
| --- | --- |
${Object.entries(servicePolicy)
  .map(([verb, least]) => row([`\`${verb}\``, least]))
  .join('\n')}
`
}

if (import.meta.main) writeFileSync(new URL('../docs/policy.md', import.meta.url), policyPage())
