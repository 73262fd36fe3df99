// Everything that the miner needs in Azure, in one resource group. Called by `azd up`; docs/deploy.md tells what it
// makes and why. Parameters have no defaults here: main.parameters.json holds them, each under the name of an
// environment variable that `azd env set` changes. Only those that may be blank are so here, too: azd asks whoever
// deploys for a blank value that has no default.
targetScope = 'subscription'

@description('Name of the azd environment. Names of resources are made from it.')
@minLength(1)
@maxLength(64)
param environmentName string

@description('Region of every resource: one that has both Flex Consumption and the Durable Task Scheduler.')
@allowed([
  'australiaeast'
  'centralus'
  'eastasia'
  'eastus2'
  'northeurope'
  'southeastasia'
  'swedencentral'
  'uksouth'
  'westus2'
])
@metadata({
  azd: {
    type: 'location'
  }
})
param location string

@description('Object id of who deploys. May open the scheduler\'s dashboard, and nothing else; azd fills it in.')
param principalId string

@description('What principalId is. azd fills it in.')
@allowed([
  'User'
  'ServicePrincipal'
])
param principalType string

@description('Setting MiningDifficulty: leading zero bits when the caller gives none. At most maxDifficulty.')
@minValue(1)
@maxValue(256)
param miningDifficulty int

@description('Setting WaitBudgetSeconds: how long start_mining waits. Azure ends an HTTP call at 230 s.')
@minValue(0)
@maxValue(200)
param waitBudgetSeconds int

@description('Setting MaxDifficulty: what a caller may ask for at most.')
@minValue(1)
@maxValue(256)
param maxDifficulty int

@description('Setting MaxBlocks: blocks that a caller may ask for at most.')
@minValue(1)
@maxValue(1000)
param maxBlocks int

@description('Setting MiningFanOut: how many instances share a block, each with a slice of it.')
@minValue(1)
@maxValue(64)
param miningFanOut int

@description('Setting AllowedHosts: host names of the app beside its own, comma-separated.')
param allowedHosts string = ''

@description('Memory of an instance. Cores come with it: about 0.25, 1 and 2.')
@allowed([
  512
  2048
  4096
])
param instanceMemoryMB int

@description('Instances at most of each group that scales by itself. Some regions refused values under 40.')
@minValue(1)
@maxValue(1000)
param maximumInstanceCount int

@description('How the scheduler is paid: by the action, or by reserved capacity.')
@allowed([
  'Consumption'
  'Dedicated'
])
param schedulerSku string

@description('IP ranges that may reach the scheduler, comma-separated. Callers need a role as well.')
@minLength(1)
param schedulerIpAllowList string

@description('Days after which the scheduler forgets a workflow that has ended.')
@minValue(1)
@maxValue(90)
param schedulerRetentionDays int

@description('Put the storage account behind private endpoints, and the app into a virtual network that reaches them.')
param vnetEnabled bool

@description('Ask callers for a Microsoft Entra token, checked before a request reaches the app, in place of the key.')
param authEnabled bool

@description('Let the tool whoami ask Microsoft Graph as the caller. Implies authEnabled.')
param onBehalfOfEnabled bool

@description('Client ids of the MCP clients that may call without asking for consent, comma-separated.')
param authorizedClientIds string

@description('Identifier URIs of the app registration beside its own, comma-separated. Clients are told of the first.')
param entraIdentifierUris string = ''

@description('Where clients that sign users in as the app registration are sent back to, comma-separated.')
param entraRedirectUris string = ''

// On-behalf-of starts from the caller's token, so there has to be one.
var entraEnabled = authEnabled || onBehalfOfEnabled
var token = toLower(uniqueString(subscription().id, environmentName, location))
var functionAppName = 'func-pow-${token}'
// Easy Auth's callback is registered before the app exists, so the name has to be known.
var functionAppHost = '${functionAppName}.azurewebsites.net'
var clientIds = map(filter(split(authorizedClientIds, ','), id => !empty(trim(id))), id => trim(id))
var identifierUris = map(filter(split(entraIdentifierUris, ','), entry => !empty(trim(entry))), entry => trim(entry))
var redirectUris = map(filter(split(entraRedirectUris, ','), entry => !empty(trim(entry))), entry => trim(entry))
var ipRanges = map(filter(split(schedulerIpAllowList, ','), entry => !empty(trim(entry))), entry => trim(entry))
// A deployment with one of these would end well, with a scheduler that nobody reaches or an app that refuses to start.
var ipAllowList = !empty(ipRanges) ? ipRanges : fail('SCHEDULER_IP_ALLOW_LIST must have an IP range')
var hostNames = !contains(allowedHosts, '/') ? allowedHosts : fail('ALLOWED_HOSTS must be names of hosts, no URLs')
var difficulty = miningDifficulty <= maxDifficulty ? miningDifficulty : fail('MINING_DIFFICULTY is over MAX_DIFFICULTY')
var containers = {
  package: 'app-package'
  // Named chains; pow/tools/chain_store.py knows it by this name.
  chains: 'chains'
}
// azd finds its resources by this tag.
var tags = {
  'azd-env-name': environmentName
}

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'br/public:avm/res/managed-identity/user-assigned-identity:0.4.1' = {
  name: 'identity'
  scope: group
  params: {
    name: 'id-pow-${token}'
    location: location
    tags: tags
    enableTelemetry: false
  }
}

module monitoring './app/monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    workspaceName: 'log-pow-${token}'
    componentName: 'appi-pow-${token}'
    location: location
    tags: tags
  }
}

module storage './app/storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    name: 'st${token}'
    containerNames: [
      containers.package
      containers.chains
    ]
    publicAccess: !vnetEnabled
    location: location
    tags: tags
  }
}

module network './app/network.bicep' = if (vnetEnabled) {
  name: 'network'
  scope: group
  params: {
    name: 'vnet-pow-${token}'
    storageAccountId: storage.outputs.resourceId
    location: location
    tags: tags
  }
}

module scheduler './app/scheduler.bicep' = {
  name: 'scheduler'
  scope: group
  params: {
    name: 'dts-pow-${token}'
    taskHubName: 'pow'
    sku: schedulerSku
    ipAllowList: ipAllowList
    retentionDays: schedulerRetentionDays
    location: location
    tags: tags
  }
}

module roles './app/roles.bicep' = {
  name: 'roles'
  scope: group
  params: {
    appPrincipalId: identity.outputs.principalId
    deployerPrincipalId: principalId
    deployerPrincipalType: principalType
    storageAccountName: storage.outputs.name
    insightsName: monitoring.outputs.componentName
    schedulerName: scheduler.outputs.name
  }
}

module entra './app/entra.bicep' = if (entraEnabled) {
  name: 'entra'
  scope: group
  params: {
    uniqueName: functionAppName
    functionAppHost: functionAppHost
    clientIds: clientIds
    identifierUris: identifierUris
    redirectUris: redirectUris
    identityPrincipalId: identity.outputs.principalId
    graphEnabled: onBehalfOfEnabled
  }
}

module functionApp './app/function-app.bicep' = {
  name: 'function-app'
  scope: group
  // The app asks for its storage, its scheduler and its hub as soon as it starts.
  dependsOn: [
    roles
  ]
  params: {
    name: functionAppName
    planName: 'plan-pow-${token}'
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    identityId: identity.outputs.resourceId
    identityClientId: identity.outputs.clientId
    storageAccountName: storage.outputs.name
    packageContainerName: containers.package
    insightsConnectionString: monitoring.outputs.connectionString
    schedulerEndpoint: scheduler.outputs.endpoint
    taskHubName: scheduler.outputs.taskHubName
    subnetId: vnetEnabled ? network!.outputs.appSubnetId : ''
    waitBudgetSeconds: waitBudgetSeconds
    miningDifficulty: difficulty
    maxDifficulty: maxDifficulty
    maxBlocks: maxBlocks
    miningFanOut: miningFanOut
    allowedHosts: hostNames
    entraEnabled: entraEnabled
    onBehalfOfEnabled: onBehalfOfEnabled
    registrationClientId: entraEnabled ? entra!.outputs.clientId : ''
    registrationIdentifierUri: entraEnabled ? entra!.outputs.identifierUri : ''
    registrationScope: entraEnabled ? entra!.outputs.scope : ''
    clientIds: clientIds
    location: location
    tags: tags
  }
}

@description('What the commands of docs/deploy.md take as the resource group.')
output AZURE_RESOURCE_GROUP string = group.name

@description('What the commands of docs/deploy.md take as the app.')
output AZURE_FUNCTION_APP_NAME string = functionApp.outputs.name

@description('The URL that MCP clients take.')
output MCP_ENDPOINT string = 'https://${functionAppHost}/runtime/webhooks/mcp'

@description('Where a user signs in once, so that whoami may ask Microsoft Graph. Empty without on-behalf-of.')
output CONSENT_URL string = onBehalfOfEnabled ? 'https://${functionAppHost}/.auth/login/aad' : ''
