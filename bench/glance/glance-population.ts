import type { Bench } from './bench-case.ts'

/** Gives Glance's database `count` images like those of `populationImage`, in its own SQL; those of an earlier call stay. */
export async function populateGlance({ mariadb, cast }: Bench['glance'], count: number): Promise<void> {
  const found = await mariadb.sql('glance', "select count(*) from images where name like 'seed-%'")
  const first = Number(found) + 1
  if (first > count) return
  // the ids of populationImage: an MD5 with dashes
  const id = "insert(insert(insert(insert(md5(concat('image', seq)), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')"
  const owner = `if(seq % 20 = 7, '${cast.member.projectId}', lpad(seq % 99, 32, 'e'))`
  const at = "('2026-01-01' - interval seq second)"
  const from = `from seq_${first}_to_${count}`
  const properties: Readonly<Record<string, string>> = {
    os_distro: "elt(1 + seq % 10, 'debian', 'ubuntu', 'fedora', 'rocky', 'alma', 'suse', 'arch', 'alpine', 'windows', 'freebsd')",
    os_version: 'seq % 20',
    hw_disk_bus: "'virtio'",
    build_id: "concat('b', seq)",
  }
  const tags = ["concat('team-', seq % 50)", "if(seq % 100 = 7, 'golden', 'nightly')"]
  const statements = [
    'set foreign_key_checks = 0; set unique_checks = 0; start transaction',
    `insert into images (id, name, size, status, created_at, updated_at, deleted, disk_format, container_format, checksum, owner,
      min_disk, min_ram, protected, virtual_size, visibility, os_hidden, os_hash_algo, os_hash_value)
     select ${id}, concat('seed-', lpad(seq, 7, '0')), (seq * 7919) % 20000000000, 'active', ${at}, ${at}, 0,
      elt(1 + seq % 3, 'qcow2', 'raw', 'vmdk'), 'bare', md5(seq), ${owner}, 10, 512, 0, 10737418240,
      if(seq % 50 = 0, 'public', if(seq % 2 = 1, 'shared', 'private')), 0, 'sha512', sha2(seq, 512) ${from}`,
    ...Object.entries(properties).map(
      ([name, value]) =>
        `insert into image_properties (image_id, name, value, created_at, deleted) select ${id}, '${name}', ${value}, ${at}, 0 ${from}`,
    ),
    ...tags.map((tag) => `insert into image_tags (image_id, value, created_at, deleted) select ${id}, ${tag}, ${at}, 0 ${from}`),
    `insert into image_locations (image_id, value, created_at, deleted, meta_data, status)
     select ${id}, concat('file:///nowhere/', seq), ${at}, 0, '{"store": "imprint"}', 'active' ${from}`,
    'commit; analyze table images, image_properties, image_tags, image_locations',
  ]
  await mariadb.sql('glance', `${statements.join(';\n')};`)
}
