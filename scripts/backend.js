// The backend of the demo and of the bench: a real HTTP service with a little data.
//
//     node backend.js        prints the URL on which it listens, and serves until it is ended
import http from 'node:http';

const provisionings = { MySQL: { ok: 120, failed: 6 }, PostgreSQL: { ok: 310, failed: 3 }, Redis: { ok: 75, failed: 9 } };

const routes = {
  '/products': () => Object.keys(provisionings).map((name) => ({ name })),
  '/provisionings': (query) => provisionings[query.get('product')],
};

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://backend');
  const answer = routes[url.pathname]?.(url.searchParams);
  response.statusCode = answer === undefined ? 404 : 200;
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify(answer ?? { error: 'not found' }));
});

server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
