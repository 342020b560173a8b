// @ts-check
/**
 * What a snapshot of the guest is made of: this runs once, when it is made, and `start` in every zygote.
 *
 *     node --snapshot-blob <file> --build-snapshot <this, bundled to one script>
 *     node --snapshot-blob <file> <the seal>
 */
import { startFromSnapshot } from '../shared/powers.js';
import { start } from './main.js';

startFromSnapshot(start);
