// A fresh V8 isolate for each program, in the server's own process.
import ivm from 'isolated-vm';
import { rates, serve } from './serve.js';

const getRates = new ivm.Reference(async () => rates);

serve(async (code) => {
  const isolate = new ivm.Isolate({ memoryLimit: 64 });
  try {
    const context = await isolate.createContext();
    const options = '{ arguments: { copy: true }, result: { promise: true, copy: true } }';
    await context.evalClosure(`globalThis.GetRates = (params) => $0.apply(undefined, [params], ${options})`, [getRates]);
    const script = await isolate.compileScript(`${code}; main()`);
    return await script.run(context, { promise: true, copy: true, timeout: 15000 });
  } finally {
    isolate.dispose();
  }
});
