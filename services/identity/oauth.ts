// oauth.ts: the token endpoint's form and its errors (RFC 6749, sections 4.3, 5.2 and 6). Clients are public: they have no secret.
import { Fault } from '#platform/errors.ts';

export type TokenRequest = { grant: 'password'; username: string; password: string } | { grant: 'refresh_token'; refreshToken: string };

export class TokenError extends Error {
  override readonly name = 'TokenError';
  readonly error: string;
  readonly httpCode: number;

  constructor(error: string, description: string, httpCode = 400) {
    super(description);
    this.error = error;
    this.httpCode = httpCode;
  }
}

const FORM = 'application/x-www-form-urlencoded';
const MAX_FORM_BYTES = 8192;
const MAX_CHARACTERS: Record<string, number> = { username: 254, password: 256, refresh_token: 256 };

export function parse(contentType: string, body: Buffer): TokenRequest {
  if (contentType.split(';')[0]?.trim().toLowerCase() !== FORM) throw invalid(`send the form as ${FORM}`);
  if (body.length > MAX_FORM_BYTES) throw invalid(`the form is longer than ${MAX_FORM_BYTES} bytes`);
  const form = new URLSearchParams(body.toString('utf8'));
  const names = [...form.keys()];
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) throw invalid('a parameter is given more than once');
  if (form.get('client_secret') || form.get('client_assertion'))
    throw new TokenError('invalid_client', 'clients have no secret here: leave it out', 401);
  switch (form.get('grant_type')) {
    case 'password':
      return { grant: 'password', username: required(form, 'username'), password: required(form, 'password') };
    case 'refresh_token':
      return { grant: 'refresh_token', refreshToken: required(form, 'refresh_token') };
    case null:
    case '':
      throw invalid('grant_type is missing: password or refresh_token');
    default:
      throw new TokenError('unsupported_grant_type', 'grant_type must be password or refresh_token');
  }
}

function required(form: URLSearchParams, name: string): string {
  const value = form.get(name);
  if (!value) throw invalid(`${name} is missing`); // section 3.2: without a value it counts as left out
  if ([...value].length > (MAX_CHARACTERS[name] ?? 0)) throw invalid(`${name} is longer than ${MAX_CHARACTERS[name]} characters`);
  return value;
}

const invalid = (description: string): TokenError => new TokenError('invalid_request', description);

const REFUSALS = ['CREDENTIALS_INVALID', 'USER_DISABLED', 'REFRESH_TOKEN_INVALID', 'REFRESH_TOKEN_REUSED'];

// What was refused because of the name, the password or the token is the RFC's invalid_grant; everything else stays what it is.
export function errorOf(error: unknown): TokenError {
  if (error instanceof TokenError) return error;
  if (error instanceof Fault && REFUSALS.includes(error.reason)) return new TokenError('invalid_grant', error.message);
  throw error;
}
