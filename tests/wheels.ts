// Libraries for tests, and an index (PEP 503) on loopback that hands them out: no test of environments needs the internet.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Index {
  url: string;
  add(file: string, body: Buffer): string; // of the library that the name begins with; answers the requirement, with its hash
  fetched(file: string): number;
  hold(file: string): void; // who fetches it waits
  release(): void;
  stop(): void;
}

const MAKE = `
import base64, hashlib, io, json, sys, zipfile
name, version, files = json.load(sys.stdin)
info = f"{name}-{version}.dist-info"
files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n",
  f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
def row(path, text):
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(text.encode())}\\n"
record = "".join(row(*one) for one in files.items()) + f"{info}/RECORD,,\\n"
made = io.BytesIO()
with zipfile.ZipFile(made, "w") as wheel:
    for path, text in {**files, f"{info}/RECORD": record}.items():
        wheel.writestr(path, text)
sys.stdout.buffer.write(made.getvalue())
`;

// A wheel of these files.
export const wheelOf = (name: string, version: string, files: Record<string, string>): Buffer =>
  execFileSync('.venv/bin/python', ['-c', MAKE], { input: JSON.stringify([name, version, files]) });

export async function startIndex(): Promise<Index> {
  const files = new Map<string, Buffer>();
  const counts = new Map<string, number>();
  const held = new Set<string>();
  let waiting: (() => void)[] = [];

  function answer(file: string, response: ServerResponse): void {
    const body = files.get(file);
    counts.set(file, (counts.get(file) ?? 0) + 1);
    if (held.has(file)) waiting.push(() => response.end(body));
    else response.end(body);
  }
  const server = createServer((request, response) => {
    const [, kind = '', name = ''] = (request.url ?? '').split('/');
    if (kind === 'files' && files.has(name)) return answer(name, response);
    const own = [...files.keys()].filter((file) => file.startsWith(`${name}-`));
    if (kind !== 'simple' || own.length === 0) return response.writeHead(404).end();
    const links = own.map((file) => `<a href="/files/${file}#sha256=${hashOf(files.get(file) ?? Buffer.alloc(0))}">${file}</a>`);
    return response.writeHead(200, { 'content-type': 'text/html' }).end(`<!DOCTYPE html><html><body>${links.join('')}</body></html>`);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/simple/`,
    add(file, body) {
      files.set(file, body);
      const [name, version] = file.replace(/\.tar\.gz$/, '').split('-');
      return `${name}==${version} --hash=sha256:${hashOf(body)}`;
    },
    fetched: (file) => counts.get(file) ?? 0,
    hold: (file) => void held.add(file),
    release() {
      held.clear();
      for (const go of waiting) go();
      waiting = [];
    },
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

const hashOf = (body: Buffer): string => createHash('sha256').update(body).digest('hex');
