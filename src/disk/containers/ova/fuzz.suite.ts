import { type FuzzTarget, fuzzTarget } from '../../../../test/fixtures/fuzz/target.ts'
import { parseDescriptor } from './descriptor.ts'
import { parseManifest } from './manifest.ts'
import { openOva } from './open-ova.ts'
import { imageHints } from './properties.ts'
import { descriptor, manifestOf, smallOva } from './small-packages.suite.ts'

const words = [
  ...['<', '>', '/>', '</', '"', "'", '&', '&amp;', '&#0;', '&#x10ffff;', ']]>', '<![CDATA[', '-->', '<!--', '<?', '<!DOCTYPE'],
  ...[
    'xmlns="',
    ':',
    '=',
    '\0',
    '<Item>',
    '</Item>',
    '<Disk ovf:capacity="',
    'ovf:',
    '\u{1f600}',
    '$\u007bx}',
    '<!ENTITY a "b">',
  ],
  ...['9'.repeat(30), '-1', '0', '1e99', 'byte * 2^60', 'byte * 2^', '../', '/etc/passwd', 'http://169.254.169.254/', 'file:'],
  ...['ovf:fileRef="file1"', 'ovf:id="file1"', 'ovf:href="x"', 'ovf:size="0"', 'ovf:chunkSize="1"', 'ovf:compression="gzip"'],
]

export const targets: readonly FuzzTarget[] = [
  fuzzTarget({
    name: 'ovf',
    bases: [{ bytes: Buffer.from(descriptor()), words }],
    leastTaken: 5,
    use: ({ bytes }) => void imageHints(parseDescriptor(bytes)),
  }),
  fuzzTarget({
    name: 'ovf-manifest',
    bases: [
      {
        bytes: Buffer.from(manifestOf({ 'a.ovf': 'x', 'b (1).vmdk': 'y' })),
        words: ['SHA1(', 'SHA512(', ')= ', '(', ')', '\n', '\r\n', '\0', '../', 'a.ovf', '00', 'zz', 'MD5(x)= 00'],
      },
    ],
    leastTaken: 2,
    use: ({ bytes }) => void parseManifest(bytes),
  }),
  fuzzTarget({
    name: 'ova',
    bases: [
      {
        bytes: smallOva(),
        fields: [0, 4096, 5120].flatMap((at) => [[at + 124, 8] as const, [at + 156, 1] as const, [at + 4, 4] as const]),
      },
    ],
    leastTaken: 5,
    async use(file) {
      const appliance = await openOva(file)
      await appliance.verify()
      for (const { file: inside } of appliance.disks) if (inside?.isPlain) await inside.open().read(0, inside.storedBytes)
    },
  }),
]
