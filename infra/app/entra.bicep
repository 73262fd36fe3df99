// The app registration that callers ask tokens for. It has no secret: the app proves itself with its managed
// identity, which the federated credential below lets stand for the registration. Only made behind Entra.
extension microsoftGraphV1

param uniqueName string
param functionAppHost string

@description('Clients that need no consent for the scope.')
param clientIds array

@description('Further identifier URIs. Clients are told to ask for the scope of the first of them, if there is one.')
param identifierUris array

@description('Where public clients that sign users in as this registration are sent back to.')
param redirectUris array

@description('Object id of the managed identity that may stand for the registration.')
param identityPrincipalId string

@description('Whether the registration asks for User.Read of Microsoft Graph, for whoami.')
param graphEnabled bool

var scopeName = 'user_impersonation'
var scopeId = guid(uniqueName, scopeName)
// The tenant's id makes it unique, which tenants may insist on.
var registrationUri = 'api://${tenant().tenantId}/${uniqueName}'
// Strict clients (RFC 8707) name the server's URL as the resource, which Entra takes only where the scope is of the
// same identifier URI.
var scopeUri = empty(identifierUris) ? registrationUri : identifierUris[0]
var preAuthorizedApplications = [
  for clientId in clientIds: {
    appId: clientId
    delegatedPermissionIds: [
      scopeId
    ]
  }
]
var userReadOfGraph = [
  {
    resourceAppId: '00000003-0000-0000-c000-000000000000'
    resourceAccess: [
      {
        id: 'e1fe6dd8-ba31-4d61-89e7-88639da4683d'
        type: 'Scope'
      }
    ]
  }
]

resource registration 'Microsoft.Graph/applications@v1.0' = {
  uniqueName: uniqueName
  displayName: 'pow-mcp (${uniqueName})'
  signInAudience: 'AzureADMyOrg'
  identifierUris: union([registrationUri], identifierUris)
  api: {
    requestedAccessTokenVersion: 2
    oauth2PermissionScopes: [
      {
        id: scopeId
        value: scopeName
        type: 'User'
        isEnabled: true
        adminConsentDisplayName: 'Call the mining tools'
        adminConsentDescription: 'Lets a client call the mining tools as the signed-in user.'
        userConsentDisplayName: 'Call the mining tools'
        userConsentDescription: 'Lets a client call the mining tools as you.'
      }
    ]
    preAuthorizedApplications: preAuthorizedApplications
  }
  web: {
    redirectUris: [
      'https://${functionAppHost}/.auth/login/aad/callback'
    ]
    implicitGrantSettings: {
      enableAccessTokenIssuance: false
      // The sign-in page of App Service asks for one.
      enableIdTokenIssuance: true
    }
  }
  publicClient: {
    redirectUris: redirectUris
  }
  requiredResourceAccess: graphEnabled ? userReadOfGraph : []
}

resource servicePrincipal 'Microsoft.Graph/servicePrincipals@v1.0' = {
  appId: registration.appId
}

resource credential 'Microsoft.Graph/applications/federatedIdentityCredentials@v1.0' = {
  name: '${registration.uniqueName}/managed-identity'
  issuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
  subject: identityPrincipalId
  audiences: [
    'api://AzureADTokenExchange'
  ]
}

output clientId string = registration.appId
output identifierUri string = registrationUri
output scope string = '${scopeUri}/${scopeName}'
