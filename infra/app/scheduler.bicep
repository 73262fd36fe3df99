// The Durable Task Scheduler, which keeps the workflows, and the task hub that this app's workflows live in.

param name string
param taskHubName string
param sku string
param ipAllowList array
param retentionDays int
param location string
param tags object

resource scheduler 'Microsoft.DurableTask/schedulers@2025-11-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    ipAllowlist: ipAllowList
    // Only reserved capacity comes in units.
    sku: union({ name: sku }, sku == 'Dedicated' ? { capacity: 1 } : {})
  }
}

resource taskHub 'Microsoft.DurableTask/schedulers/taskHubs@2025-11-01' = {
  parent: scheduler
  name: taskHubName
  properties: {}
}

// A workflow that runs is never purged, however old. Without a policy the scheduler keeps ended ones for 30 days.
resource retention 'Microsoft.DurableTask/schedulers/retentionPolicies@2025-11-01' = {
  parent: scheduler
  name: 'default'
  properties: {
    retentionPolicies: [
      {
        // Without an orchestrationState: of every state that ends.
        retentionPeriodInDays: retentionDays
      }
    ]
  }
}

output name string = scheduler.name
output endpoint string = scheduler.properties.endpoint
output taskHubName string = taskHub.name
