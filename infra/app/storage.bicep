// The storage account of the function app: the host's own blobs and queues, the deployed package, the named chains.

param name string
param containerNames array

@description('Whether the account answers from outside the virtual network.')
param publicAccess bool
param location string
param tags object

var containers = [
  for containerName in containerNames: {
    name: containerName
  }
]

module account 'br/public:avm/res/storage/storage-account:0.8.3' = {
  name: 'account'
  params: {
    name: name
    location: location
    tags: tags
    // The module's default keeps a second copy in another region, at twice the price. What is lost with this region is
    // the named chains, the package, which can be deployed again, and what the host writes anew.
    skuName: 'Standard_LRS'
    // No keys, so none can leak: every access is an identity's with a role.
    allowSharedKeyAccess: false
    allowBlobPublicAccess: false
    minimumTlsVersion: 'TLS1_2'
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
    networkAcls: {
      defaultAction: publicAccess ? 'Allow' : 'Deny'
      bypass: publicAccess ? 'AzureServices' : 'None'
    }
    blobServices: {
      containers: containers
    }
    enableTelemetry: false
  }
}

output name string = account.outputs.name
output resourceId string = account.outputs.resourceId
