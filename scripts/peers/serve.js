// What all peers have in common: one function for programs, and `POST {"code"}` answered by `{"result"}`.
import http from 'node:http';

export const rates = [{ product: 'MySQL', ok: 12, failed: 3 }];

/** Serves on a free port, which it prints. */
export const serve = (run) => {
  const answer = async (request, response) => {
    const chunks = [];
    for await (const chunk of request) {
      chunks.push(chunk);
    }
    const { code } = JSON.parse(Buffer.concat(chunks).toString());
    const body = await run(code).then((result) => ({ result }), (error) => ({ error: String(error) }));
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify(body));
  };
  const server = http.createServer((request, response) => void answer(request, response));
  server.listen(0, '127.0.0.1', () => console.log(`peer listens on http://127.0.0.1:${server.address().port}`));
};
