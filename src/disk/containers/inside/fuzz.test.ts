import { fuzzTests } from '../../../../test/fixtures/fuzz/fuzz.ts'
import { targets } from './fuzz.suite.ts'

fuzzTests(targets, new URL('./fuzz.suite.ts', import.meta.url))
