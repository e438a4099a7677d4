-- What no filter of Envoy does for REST: refuses a field given twice, and finishes answers: the status that the service chose, headers that
-- every answer carries, and no leftovers of gRPC.
-- SECURITY_HEADERS is set by the generator.

local function decoded(name)
  return (string.gsub(name, "%%(%x%x)", function(code)
    return string.char(tonumber(code, 16))
  end))
end

-- A field that the path gives may not be given again by the query, which the transcoder would prefer: the log would name one resource and
-- the call reach another. `bound` holds the names as |name|name|, in lower case and without underscores, since both spellings are read.
local function given_twice(path, bound)
  local query = string.match(path, "%?(.*)$")
  for name in string.gmatch(query or "", "[^&=]+") do
    local plain = string.lower((string.gsub(decoded(name), "_", "")))
    if string.find(bound, "|" .. plain .. "|", 1, true) ~= nil then
      return decoded(name)
    end
  end
  return nil
end

-- The REST route is only known here: after transcoding the route of the gRPC method is the current one.
function envoy_on_request(handle)
  local route = handle:metadata()
  local bound = route:get("bound")
  if bound ~= nil then
    local name = given_twice(handle:headers():get(":path"), bound)
    if name ~= nil then
      handle:respond({ [":status"] = "400" }, name .. " is given by the path already")
      return
    end
  end
  local stream = route:get("stream")
  if stream ~= nil then
    handle:streamInfo():dynamicMetadata():set("edge", "stream", stream)
  end
end

-- Success only, except for answers that are bytes as they are: the errors of OAuth 2.0 have bodies of their own (RFC 6749, section 5.2).
local function may_answer(code, is_raw)
  return (code >= 200 and code < 300) or (is_raw and (code == 400 or code == 401))
end

local function clear_body(handle)
  local body = handle:body()
  if body ~= nil then
    body:setBytes("")
  end
  local headers = handle:headers() -- body() yields, and the headers from before are dead then
  headers:remove("content-length")
  headers:remove("content-type")
  return headers
end

local function finish_grpc(headers, content_type)
  local code = headers:get("x-edge-grpc-code")
  if code == nil then
    return
  end
  headers:remove("x-edge-grpc-code")
  if string.sub(content_type, 1, 20) == "application/grpc-web" then -- its filter cannot tell 8 from 14
    headers:replace("grpc-status", code)
    headers:replace(":status", "200")
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local content_type = headers:get("content-type") or ""
  if string.sub(content_type, 1, 16) == "application/grpc" then
    return finish_grpc(headers, content_type)
  end

  local chosen = headers:get("x-http-code")
  if chosen ~= nil then
    headers:remove("x-http-code")
    local code = tonumber(chosen)
    if code ~= nil and headers:get(":status") == "200" and may_answer(code, handle:metadata():get("raw") == "true") then
      headers:replace(":status", chosen)
      if code == 204 then
        headers = clear_body(handle)
      end
    end
  end

  local told = handle:streamInfo():dynamicMetadata():get("edge")
  if told ~= nil and told["stream"] ~= nil then
    headers:replace("vary", "Accept")
    if told["stream"] == "ndjson" and headers:get(":status") == "200" then
      headers:replace("content-type", "application/x-ndjson")
    end
  end
  if headers:get("cache-control") == nil then
    headers:add("cache-control", "no-store")
  end
  for name, value in pairs(SECURITY_HEADERS) do
    headers:replace(name, value)
  end
  for _, name in ipairs({ "grpc-status", "grpc-message", "grpc-encoding", "grpc-accept-encoding", "grpc-status-details-bin" }) do
    headers:remove(name)
  end
end
