-- Runs the health checks exactly as they stand in argocd-cm-health.yaml and in docs/gitops.md.
-- Usage: lua5.4 examples/gitops/health_test.lua   (Lua 5.1, which Argo CD speaks, works too)

local here = arg[0]:match("^(.*)/[^/]*$") or "."

local function lines_of(path)
  local list = {}
  for line in assert(io.open(path)):lines() do list[#list + 1] = line end
  return list
end

-- The indented block after `  key: |`.
local function block(key)
  local found, inside = {}, false
  for _, line in ipairs(lines_of(here .. "/argocd-cm-health.yaml")) do
    if line == "  " .. key .. ": |" then
      inside = true
    elseif inside and line:sub(1, 4) == "    " then
      found[#found + 1] = line:sub(5)
    elseif inside then
      break
    end
  end
  assert(#found > 0, "no block " .. key)
  return table.concat(found, "\n") .. "\n"
end

-- Argo CD gives the script `obj` and a few safe libraries.
local function check(script, obj)
  local world = {obj = obj, ipairs = ipairs, pairs = pairs, string = string, table = table}
  local chunk
  if setfenv then
    chunk = setfenv(assert(loadstring(script)), world)
  else
    chunk = assert(load(script, "health", "t", world))
  end
  return chunk()
end

local function object(observed, conditions)
  return {
    metadata = {generation = 2},
    status = {observedGeneration = observed, conditions = conditions},
  }
end

local accepted = {type = "Accepted", status = "True", reason = "Valid", message = ""}
local refused =
  {type = "Accepted", status = "False", reason = "InvalidSpec", message = "write host:port"}
local online = {type = "Ready", status = "True", reason = "Online", message = "answers"}
local offline = {type = "Ready", status = "False", reason = "Timeout", message = "no answer"}
local pending = {type = "Ready", status = "Unknown", reason = "Pending"}

local cases = {
  {"no status", {metadata = {generation = 1}}, "Progressing"},
  {"the schema's default", object(nil, {pending}), "Progressing"},
  {"an older generation", object(1, {online, accepted}), "Progressing"},
  {"no conditions", object(2, nil), "Progressing"},
  {"online", object(2, {online, accepted}), "Healthy", "Online: answers"},
  {"a machine that is off", object(2, {accepted, offline}), "Healthy", "Timeout: no answer"},
  {"refused", object(2, {offline, refused}), "Degraded", "InvalidSpec: write host:port"},
  {"no message", object(2, {pending, accepted}), "Healthy", "Pending: "},
}

local document = table.concat(lines_of(here .. "/../../docs/gitops.md"), "\n")
local ran = 0
for _, kind in ipairs({"OllamaServer", "FleetPlugin"}) do
  local script = block("resource.customizations.health.ollama-fleet.io_" .. kind)
  assert(document:find(script, 1, true), kind .. ": docs/gitops.md shows another script")
  for _, case in ipairs(cases) do
    local name, obj, status, message = case[1], case[2], case[3], case[4]
    local got = check(script, obj)
    assert(got.status == status, kind .. ", " .. name .. ": " .. tostring(got.status))
    assert(not message or got.message == message, kind .. ", " .. name .. ": " .. got.message)
    ran = ran + 1
  end
end
print(ran .. " health checks as expected")
