// The function app on Flex Consumption, all of its settings, and who may call it.

param name string
param planName string
param instanceMemoryMB int
param maximumInstanceCount int
param identityId string
param identityClientId string
param storageAccountName string
param packageContainerName string
param insightsConnectionString string
param schedulerEndpoint string
param taskHubName string

@description('Subnet of the app, or empty for none.')
param subnetId string
param waitBudgetSeconds int
param miningDifficulty int
param maxDifficulty int
param maxBlocks int
param miningFanOut int
param allowedHosts string

@description('Whether Entra guards the app. Otherwise the MCP extension\'s system key does.')
param entraEnabled bool
param onBehalfOfEnabled bool

@description('The app registration\'s client id, identifier URI and scope; empty without Entra.')
param registrationClientId string
param registrationIdentifierUri string
param registrationScope string

@description('Clients whose tokens are taken.')
param clientIds array
param location string
param tags object

// Every application setting but Entra's. Those that the app itself reads are listed in docs/deploy.md; a blank one
// means the default.
var appSettings = {
  WaitBudgetSeconds: string(waitBudgetSeconds)
  MiningDifficulty: string(miningDifficulty)
  MaxDifficulty: string(maxDifficulty)
  MaxBlocks: string(maxBlocks)
  MiningFanOut: string(miningFanOut)
  MiningThreads: ''
  AllowedHosts: allowedHosts
  POW_BACKEND: 'auto'
  TASKHUB_NAME: taskHubName
  DURABLE_TASK_SCHEDULER_CONNECTION_STRING: 'Endpoint=${schedulerEndpoint};Authentication=ManagedIdentity;ClientID=${identityClientId}'
  // Nothing promises that the platform's own setting is there (WEBSITE_AUTH_ENABLED), by which the app would know.
  CallersAreAuthenticated: entraEnabled ? 'true' : 'false'
  OnBehalfOfTenantId: onBehalfOfEnabled ? tenant().tenantId : ''
  OnBehalfOfClientId: onBehalfOfEnabled ? registrationClientId : ''
  OnBehalfOfIdentityClientId: onBehalfOfEnabled ? identityClientId : ''
  AzureWebJobsStorage__accountName: storageAccountName
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
  // Behind Entra a key as well would only be one more thing to leak.
  AzureFunctionsJobHost__extensions__mcp__system__webhookAuthorizationLevel: entraEnabled ? 'Anonymous' : 'System'
}

var entraSettings = {
  // What clients read at /.well-known/oauth-protected-resource to find out which token to bring.
  WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES: registrationScope
  WEBSITE_AUTH_AAD_ALLOWED_TENANTS: tenant().tenantId
  // In the place of a client secret: the identity that stands for the registration.
  OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID: identityClientId
}

var entraAuthentication = {
  platform: {
    enabled: true
    runtimeVersion: '~1'
  }
  globalValidation: {
    requireAuthentication: true
    // Not a redirect to a page: MCP clients read the challenge of a 401.
    unauthenticatedClientAction: 'Return401'
    redirectToProvider: 'azureactivedirectory'
  }
  httpSettings: {
    requireHttps: true
  }
  identityProviders: {
    azureActiveDirectory: {
      enabled: true
      registration: {
        openIdIssuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
        clientId: registrationClientId
        clientSecretSettingName: 'OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID'
      }
      login: {
        loginParameters: [
          // Signing in at /.auth/login/aad is how a user agrees to what whoami asks of Graph.
          onBehalfOfEnabled ? 'scope=openid profile email User.Read' : 'scope=openid profile email'
        ]
      }
      validation: {
        // Tokens of version 2 carry the client id.
        allowedAudiences: [
          registrationIdentifierUri
          registrationClientId
        ]
        defaultAuthorizationPolicy: {
          allowedApplications: union([registrationClientId], clientIds)
        }
      }
    }
  }
  login: {
    tokenStore: {
      enabled: onBehalfOfEnabled
    }
  }
}

resource storageAccount 'Microsoft.Storage/storageAccounts@2024-01-01' existing = {
  name: storageAccountName
}

module plan 'br/public:avm/res/web/serverfarm:0.1.1' = {
  name: 'plan'
  params: {
    name: planName
    location: location
    tags: tags
    sku: {
      name: 'FC1'
      tier: 'FlexConsumption'
    }
    reserved: true
    enableTelemetry: false
  }
}

module app 'br/public:avm/res/web/site:0.15.1' = {
  name: 'app'
  params: {
    name: name
    location: location
    // azd deploys azure.yaml's service of this name here.
    tags: union(tags, { 'azd-service-name': 'app' })
    kind: 'functionapp,linux'
    serverFarmResourceId: plan.outputs.resourceId
    managedIdentities: {
      systemAssigned: false
      userAssignedResourceIds: [
        identityId
      ]
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${storageAccount.properties.primaryEndpoints.blob}${packageContainerName}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'python'
        version: '3.13'
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        triggers: {
          http: {
            // Python's default is 1, an instance for each call that waits for its budget. Waiting takes no core:
            // the tools are coroutines, and mining runs on the instances of the durable group.
            perInstanceConcurrency: 16
          }
        }
      }
    }
    siteConfig: {
      alwaysOn: false
      minTlsVersion: '1.2'
    }
    // Nobody deploys with a password: azd and Core Tools bring a token of Entra.
    basicPublishingCredentialsPolicies: [
      {
        name: 'ftp'
        allow: false
      }
      {
        name: 'scm'
        allow: false
      }
    ]
    virtualNetworkSubnetId: !empty(subnetId) ? subnetId : null
    // The module lays them over those that are there: one that is no longer set here stays until somebody deletes it.
    appSettingsKeyValuePairs: union(appSettings, entraEnabled ? entraSettings : {})
    enableTelemetry: false
  }
}

resource site 'Microsoft.Web/sites@2024-04-01' existing = {
  name: name
}

// Written without Entra too: a deployment leaves alone what it doesn't mention, so Entra could not be switched off.
resource authentication 'Microsoft.Web/sites/config@2024-04-01' = {
  parent: site
  name: 'authsettingsV2'
  dependsOn: [
    app
  ]
  properties: entraEnabled ? entraAuthentication : { platform: { enabled: false } }
}

output name string = app.outputs.name
