import { catalogSuite } from '../catalog.suite.ts'
import { SqliteCatalog } from './sqlite-catalog.ts'

catalogSuite('sqlite', () => SqliteCatalog.open({ path: ':memory:' }))
