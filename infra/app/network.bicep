// A virtual network with the app in it and private endpoints to the storage account. Only made with VNET_ENABLED.

param name string
param storageAccountId string
param location string
param tags object

var appSubnet = 'app'
var endpointSubnet = 'private-endpoints'
// The two services that the host uses: blobs, and the MCP extension's queues.
var services = [
  'blob'
  'queue'
]

module network 'br/public:avm/res/network/virtual-network:0.6.1' = {
  name: 'virtual-network'
  params: {
    name: name
    location: location
    tags: tags
    enableTelemetry: false
    addressPrefixes: [
      '10.0.0.0/16'
    ]
    subnets: [
      {
        name: endpointSubnet
        addressPrefix: '10.0.1.0/24'
        privateEndpointNetworkPolicies: 'Disabled'
      }
      {
        name: appSubnet
        addressPrefix: '10.0.2.0/24'
        // What Flex Consumption runs on asks for this.
        delegation: 'Microsoft.App/environments'
      }
    ]
  }
}

module zones 'br/public:avm/res/network/private-dns-zone:0.7.1' = [
  for service in services: {
    name: 'zone-${service}'
    params: {
      name: 'privatelink.${service}.${environment().suffixes.storage}'
      location: 'global'
      tags: tags
      enableTelemetry: false
      virtualNetworkLinks: [
        {
          name: '${name}-${service}'
          virtualNetworkResourceId: network.outputs.resourceId
          registrationEnabled: false
          location: 'global'
          tags: tags
        }
      ]
    }
  }
]

module endpoints 'br/public:avm/res/network/private-endpoint:0.11.0' = [
  for (service, i) in services: {
    name: 'endpoint-${service}'
    params: {
      name: 'pe-${name}-${service}'
      location: location
      tags: tags
      enableTelemetry: false
      subnetResourceId: '${network.outputs.resourceId}/subnets/${endpointSubnet}'
      privateLinkServiceConnections: [
        {
          name: service
          properties: {
            privateLinkServiceId: storageAccountId
            groupIds: [
              service
            ]
          }
        }
      ]
      privateDnsZoneGroup: {
        name: service
        privateDnsZoneGroupConfigs: [
          {
            name: service
            privateDnsZoneResourceId: zones[i].outputs.resourceId
          }
        ]
      }
    }
  }
]

output appSubnetId string = '${network.outputs.resourceId}/subnets/${appSubnet}'
