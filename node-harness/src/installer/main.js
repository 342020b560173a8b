// @ts-check
/**
 * Runs one install script of one package, in this process: the installer's jail starts no others.
 *
 *     node main.js <folder of the package> <its name> <preinstall | install | postinstall>
 *
 * A script must be `node FILE ARGUMENT…`. What a shell or another program would do is refused by name.
 */
import { readFileSync } from 'node:fs';
import module from 'node:module';
import path from 'node:path';

const [, , folder, expected, event] = process.argv;
const { name, version, scripts = {} } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
const command = scripts[event];

if (name !== expected) {
  console.error(`the package in its place is ${name}`);
  process.exit(1);
}

if (command !== undefined) {
  const found = /^node\s+([^\s"'`|&;<>$-][^\s"'`|&;<>$]*)((?:\s+[^\s"'`|&;<>$]+)*)$/.exec(command);
  if (!found) {
    console.error(`only \`node FILE\` can be run in the jail, and this is: ${command}`);
    process.exit(1);
  }
  process.chdir(folder);
  Object.assign(process.env, { npm_package_name: name, npm_package_version: version, npm_lifecycle_event: event });
  process.argv = [process.execPath, path.resolve(found[1]), ...found[2].split(/\s+/).filter(Boolean)];
  module.runMain();
}
